"""The compositor: photograph in, truthful edit out, on a CPU and without a model. Shared by the annotator and the editor.

`scene` reads a photograph (light, horizon, free places), `objects` names what can be put into it, `render` draws that,
`blend` sets it in; `cutout` finds the photograph's own subject; `landscape` paints new surroundings; `styles` repaints
the whole; `language` says what was done.
"""
