"""All Python of the bundles but networks and losses; what a config names travels in a release.

Data: survey, cohort, datalist, dicom, readers, download; checked: scan, case_check, label_check, usable, check,
check_report; read and cached: transforms, datasets, weights; synthetic: phantom, synthetic, faults.
Runs: handlers, checkpoint, inferers, precision, parallel, record, snapshot, writer, aftertreatment, fitting, trials.
Scores: metrics, challenges, score, scoring, compare.
Report: report, results, volumes, pictures, slides, surfaces, charts, page/.
Sharing: release, verify, export. For all: errors, files, show, networks.
"""
