create table tickets (
    id integer primary key,
    subject text not null,
    body text not null,
    category text,
    category_error text
);
insert into tickets (subject, body) values
    ('Charged twice', 'I was charged twice for my Pro plan this month. Could you return one of the two payments?'),
    ('Dashboard', 'The app crashes when I open the dashboard.'),
    ('Login', 'I forgot my password and cannot log in.'),
    ('Idea', 'It would be nice to have keyboard shortcuts for moving between tabs.'),
    ('Holidays', 'What are your opening hours on public holidays?'),
    ('Invoice', 'Please send me the August invoice as a PDF for my accountant.');
