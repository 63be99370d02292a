"""The stages of benchmarks/gpu.py and the page that is made of them."""
