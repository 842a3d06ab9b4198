"""The compositor: edits photographs on a CPU, without a model. Its annotator and editor share it.

`scene` reads a photograph (light, ground, free places). `objects` names what can be put into it, built from `solids`
and `paints`; `render` draws them, `sprites` caches them with their shadow, `blend` inserts them. `cutout` finds the
photograph's own subject, `recolour` its main hue. `landscape` paints new backgrounds from `scenery` and `terrain`,
`styles` repaints the whole photograph, `language` writes instructions and captions, and `colours` names colours. The
catalogues of objects, landscapes, styles and wordings are YAML files here.
"""
