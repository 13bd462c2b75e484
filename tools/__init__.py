"""All Python of the bundles but networks and losses; what a config names travels in a release.

Data: conventions, survey, cohort, datalist, dicom, readers, download; read and cached: transforms, datasets, weights.
Checked: scan, case_check, label_check, usable, check, check_report. Synthetic: phantom, synthetic, faults.
Runs: handlers, checkpoint, inferers, precision, parallel, layers, record, snapshot, writer; aftertreatment,
fitting, trials.
Scores: metrics, challenges, score, scoring, compare.
Report: report, results, volumes, pictures, slides, surfaces, charts, page/.
Sharing: release, card, verify, export. For all: errors, files, show, networks.
"""
