"""Images for continual learning: the sources that tasks are drawn from, and the packer of folders."""

from klopf.data.arrays import ArrayImages
from klopf.data.pack import pack
from klopf.data.packed import PackedImages
from klopf.data.source import ImageSource, open_source
from klopf.data.synthetic import SyntheticImages

__all__ = ["ArrayImages", "ImageSource", "PackedImages", "SyntheticImages", "open_source", "pack"]
