"""The gallery: geo-tagged tiles of a map, ready to be searched, and the basemap that refinement reads."""

from __future__ import annotations

from cvgl.gallery.build import build_gallery
from cvgl.gallery.change import clip_gallery, extend_gallery, merge_galleries
from cvgl.gallery.gallery import Gallery
from cvgl.gallery.manifest import GalleryManifest, Layer, read_manifest

__all__ = [
    "Gallery",
    "GalleryManifest",
    "Layer",
    "build_gallery",
    "clip_gallery",
    "extend_gallery",
    "merge_galleries",
    "read_manifest",
]
