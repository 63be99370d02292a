"""UNet2D pipelines."""
