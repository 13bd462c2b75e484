"""MONAI Deploy's bundle operator on a release: `python deploy.py BUNDLE SCAN MAP` checks the label map."""

import sys
from pathlib import Path

import nibabel as nib
import numpy as np
from monai.deploy.conditions import CountCondition
from monai.deploy.core import Application, Image, IOType, Operator
from monai.deploy.operators.monai_bundle_inference_operator import IOMapping, MonaiBundleInferenceOperator

bundle, scan, expected = sys.argv[1:]
sys.argv[1:] = []  # the application reads them itself


class Source(Operator):
    def setup(self, spec):
        spec.output("image")

    def compute(self, op_input, op_output, context):
        loaded = nib.load(scan)
        array = np.moveaxis(np.asarray(loaded.dataobj, np.float32), -1, 0)  # (C, *S), as the operator passes it on
        about = {"affine": loaded.affine, "original_affine": loaded.affine, "spacing": np.ones(3), "space": "RAS"}
        op_output.emit(Image(array, metadata=about), "image")


class Sink(Operator):
    def setup(self, spec):
        spec.input("pred")

    def compute(self, op_input, op_output, context):
        made = np.swapaxes(op_input.receive("pred").asnumpy(), 0, 2)  # DHW
        wanted = np.asarray(nib.load(expected).dataobj)
        print("the same map" if made.dtype == np.uint8 and np.array_equal(made, wanted) else "another map", flush=True)


class Segment(Application):
    def compose(self):
        source, sink = Source(self, CountCondition(self, 1), name="source"), Sink(self, name="sink")
        mappings = ([IOMapping(name, Image, IOType.IN_MEMORY)] for name in ("image", "pred"))
        names = dict(zip(("input_mapping", "output_mapping"), mappings, strict=True))
        context = Application.init_app_context(["segment"])
        infer = MonaiBundleInferenceOperator(self, app_context=context, bundle_path=Path(bundle), name="infer", **names)
        self.add_flow(source, infer, {("image", "image")})
        self.add_flow(infer, sink, {("pred", "pred")})


Segment().run()
