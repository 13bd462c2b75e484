"""Write synthetic patients: `python -m tools.patients --output DIR --cases 16 --size 96`."""

from tumour.errors import command_line

from tools.patients.synthetic import make_patients


def main() -> None:
    command_line(make_patients, "tools.patients")


if __name__ == "__main__":
    main()
