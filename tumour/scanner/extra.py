"""The packages that scans from a scanner need; `make setup EXTRA=scanner` installs them."""

from importlib.metadata import PackageNotFoundError, version

from tumour.errors import InputError


def require(package: str) -> None:
    """Refuse to continue without a package of the extra `scanner`.

    Raises:
        InputError: it is not installed.
    """
    try:
        version(package)
    except PackageNotFoundError as error:
        install = f"run `make setup EXTRA=scanner`, or `pip install --no-deps {package}` for a release"
        raise InputError(f"{package} is not installed; {install}.") from error
