"""`python -m cfmvc_scvi`, where the command `cfmvc-scvi` is not on the path."""

from cfmvc_scvi.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
