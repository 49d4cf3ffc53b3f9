"""Invoice lines: department, amount and description, copied out of the text."""

from typing import NamedTuple

from model.texts import MONTHS, Dice, capital, code, date, fill, pick, pseudo_word


class Money(NamedTuple):
    """An amount as it is written, currency included, and as a JSON number."""

    written: str
    plain: str


class Invoice(NamedTuple):
    """A line and its three fields; `amount` is a JSON number, `written` how it stands in the line."""

    text: str
    department: str
    amount: str
    description: str
    written: str


def money(dice: Dice) -> Money:
    """One to eight digits, grouped in threes, the Indian way, or not at all."""
    digits = dice.choices(range(1, 9), [2, 8, 20, 25, 20, 14, 8, 3])[0]
    if dice.random() < 0.25:  # Round amounts: their zeros must be counted.
        kept = dice.randint(1, min(3, digits))
        whole = str(dice.randint(10 ** (kept - 1), 10**kept - 1)) + "0" * (digits - kept)
    elif dice.random() < 0.15:
        whole = "".join(dice.choice(dice.choice(["12", "05", "79", "13"])) for _ in range(digits)).lstrip("0") or "5"
    else:
        whole = str(dice.randint(10 ** (digits - 1), 10**digits - 1))
    indian = dice.random() < 0.35
    grouped = (
        dice.choice([_indian, _thousands, str, _indian])(whole) if indian else dice.choice([_thousands, str])(whole)
    )
    cents = f".{dice.randint(0, 99):02}" if dice.random() < (0.12 if indian else 0.35) else ""
    plain = whole + ("" if cents == ".00" else cents)
    figure = grouped + cents
    if indian:
        forms = [
            "Rs {}",
            "Rs {}",
            "Rs. {}",
            "Rs.{}",
            "INR {}",
            "{} INR",
            "₹{}",
            "₹ {}",
            "{} rupees",
            "Rs {}/-",
            "Rs. {}/-",
        ]
    else:
        forms = ["${}", "${}", "{} USD", "USD {}", "{} EUR", "EUR {}", "€{}", "{} €", "{} euros", "£{}", "GBP {}"]
        forms += ["{} dollars", "{} GBP", "CHF {}", "{} CHF", "{}", "AUD {}", "SEK {}", "{} kr", "US$ {}", "JPY {}"]
    return Money(dice.choice(forms).replace("{}", figure), plain)


def invoice(dice: Dice, split: str) -> Invoice:
    """A line whose fields stand in it as they are."""
    department, description, amount = _department(dice, split), _item(dice, split), money(dice)
    layout = pick(dice, "invoices/layouts", split)
    slots = {
        "vendor": lambda: _vendor(dice, split),
        "number": lambda: dice.choice([code(dice), str(dice.randint(10, 99_999)), f"INV-{dice.randint(1, 9999):04}"]),
        "date": lambda: date(dice),
        "person": lambda: pick(dice, "tickets/people", split),
        "place": lambda: pick(dice, "invoices/places", split),
    }
    text = fill(layout, slots)
    if text.startswith("{item}"):
        description = capital(description)
    text = text.replace("{item}", description).replace("{department}", department).replace("{amount}", amount.written)
    if dice.random() < 0.12:
        reference = dice.choice(
            [f"INV-{dice.randint(1, 9999):03}", code(dice), f"{dice.randint(1, 999)}", date(dice)]
        )
        text = f"{reference}{dice.choice([': ', ' - ', ' | ', ') ', '; ', ' '])}{text}"
    text += dice.choice(["", "", "."]) if text[-1].isalpha() else ""
    return Invoice(text, department, amount.plain, description, amount.written)


def _department(dice: Dice, split: str) -> str:
    if split == "train" and dice.random() < 0.25:
        name = capital(pseudo_word(dice))
        return dice.choice(
            [name, f"{name} {capital(pseudo_word(dice))}", f"{pick(dice, 'invoices/departments', split)} {name}"]
        )
    name = pick(dice, "invoices/departments", split)
    return name.lower() if dice.random() < 0.05 else name


def _vendor(dice: Dice, split: str) -> str:
    if split == "train" and dice.random() < 0.4:
        return capital(pseudo_word(dice)) + dice.choice(["", " Ltd", " Inc", " GmbH", " Traders", " & Co", " Works"])
    return pick(dice, "invoices/vendors", split)


def _item(dice: Dice, split: str) -> str:
    kind = dice.random()
    if kind < 0.3:
        found = pick(dice, "invoices/items", split)
    else:
        kind_of_list = "more" if split == "train" and dice.random() < 0.5 else "item"
        modifier = pick(dice, f"invoices/{kind_of_list}_modifiers", split)
        head = pick(dice, f"invoices/{kind_of_list}_heads", split)
        if split == "train" and kind < 0.6:  # Words that can only be copied.
            modifier, head = dice.choice(
                [
                    (pseudo_word(dice), head),
                    (modifier, pseudo_word(dice)),
                    (pseudo_word(dice), pseudo_word(dice)),
                    ("", pseudo_word(dice)),
                ]
            )
        found = f"{modifier} {head}".strip()
        if dice.random() < 0.12:
            found += dice.choice([" for ", " and ", " with "]) + pick(dice, "invoices/item_heads", split)
    extra = dice.random()
    if extra < 0.15:
        found = pick(dice, "invoices/units", split).replace("{n}", str(dice.randint(2, 60))) + " " + found
    elif extra < 0.25:
        found = f"{pick(dice, 'invoices/adjectives', split)} {found}"
    elif extra < 0.33:
        quarter, year = f"Q{dice.randint(1, 4)}", str(dice.randint(2020, 2030))
        found = f"{found} {dice.choice([code(dice), dice.choice(MONTHS), quarter, year])}"
    return capital(found) if dice.random() < 0.35 else found


def _thousands(whole: str) -> str:
    return f"{int(whole):,}"


def _indian(whole: str) -> str:
    """Lakh and crore: three digits, then twos. 12345678 is 1,23,45,678."""
    head, tail = whole[:-3], whole[-3:]
    pairs = [head[max(0, end - 2) : end] for end in range(len(head), 0, -2)][::-1]
    return ",".join([*pairs, tail])
