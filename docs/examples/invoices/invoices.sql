create table invoices (
    number text primary key,
    text text not null,
    department text,
    amount integer,
    note text,
    needs_approval boolean,
    processed_at text
);
insert into invoices (number, text) values
    ('INV-001', 'IT - network cables - Rs 1,24,500.00'),
    ('INV-002', 'HR - training course - Rs 45,000.00'),
    ('INV-003', 'Marketing - printed banners - Rs 2,85,000.00'),
    ('INV-004', 'Admin - office chairs - Rs 78,000.00'),
    ('INV-005', 'Finance - audit fee - Rs 8,50,000.00');
