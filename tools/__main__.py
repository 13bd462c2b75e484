"""The commands of a checkout. Training, evaluating and inferring: `python -m monai.bundle run`, see README.md."""

import sys

try:
    from tools.command_line import command_line
except ModuleNotFoundError as error:  # another Python than the one that `make setup` has prepared
    sys.exit(f"error: {sys.executable} lacks {error.name}; run make setup, then source .venv/bin/activate.")

COMMANDS = {
    "patients": "tools.patients.synthetic:make_patients",
    "download": "tools.download:download",
    "check": "tools.check:check",
    "datalist": "tools.datalist:datalist",
    "score": "tools.score:score",
    "measure": "tools.measure:COMMANDS",
    "compare": "tools.compare:compare",
    "show": "tools.show:show",
    "networks": "tools.networks:networks",
    "trials": "tools.trials:COMMANDS",
    "crossvalidate": "tools.crossvalidate:COMMANDS",
    "best": "tools.best:compare",
    "ensemble": "tools.ensemble:ensemble",
    "results": "tools.results:write_results",
    "settings": "tools.settings:write_page",
    "picture": "tools.picture:draw",
    "release": "tools.release.pack:release",
    "verify": "tools.release.verify:verify",
    "export": "tools.release.export:export",
}

if __name__ == "__main__":
    command_line(COMMANDS, "python -m tools")
