"""The compositor: photograph in, truthful edit out, on a CPU and without a model. The annotator and editor share it.

`scene` reads a photograph (light, ground, free places). `objects` names what can be put into it, built from `solids`
and `paints`; `render` draws them, `sprites` keeps them with their shadow, `blend` sets them in. `cutout` finds the
photograph's own subject, `recolour` its hue. `landscape` paints new surroundings from `scenery` and `terrain`,
`styles` repaints the whole, and `language` says what was done, with `colours` by name. The catalogues of objects,
landscapes, styles and wordings are YAML files here.
"""
