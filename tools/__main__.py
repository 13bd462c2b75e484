"""The commands of a checkout. Training, evaluating and inferring: `python -m monai.bundle run`, see README.md."""

from tools.command_line import command_line

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
