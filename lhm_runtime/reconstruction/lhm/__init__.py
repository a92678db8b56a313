"""LHM: the published network that makes an animatable avatar of one photo (Qiu et al. 2025, "LHM: Large Animatable
Human Reconstruction Model from a Single Image in Seconds").

Read in this order: network.py draws the whole; preprocessing.py makes its pictures, head_box.py finds the head in them;
sapiens.py and dinov2.py are the two encoders; points.py, transformer.py and decoder.py are the network; animation.py
turns what it gives into an avatar; pipeline.py runs all of it; config.py and checkpoint.py know the published files.
Around them: choice.py decides whether LHM is used, weights.py finds the files, run.py makes ready, cost.py (with
allocations.py) knows memory and time before and after, attention_maps.py looks inside, and plain_transformer.py is the
transformer's slow twin, which throughput.py races. Needs torch (the extra ``lhm``) but for choice.py, weights.py and
config.py.
"""
