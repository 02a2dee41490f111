"""`interp` as a model of lmms-eval, and the tasks that lmms-eval lacks. Needs the extra `lmms-eval`.

    python -m interp.lmms_eval prepare vqa_rad:FOLDER --out interp_data
    python -m interp.lmms_eval run --tasks interp_vqa_rad --model_args pretrained=organism,method=vgrefine

`run` takes what the command `lmms-eval` takes; the model is found by the entry point `lmms_eval.models`, so
`lmms-eval --model interp` works as well. See docs/benchmark_study.md.
"""
