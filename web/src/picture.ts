// The picture of a case with what steers it: opacity, window, overlay.
import { asProblem, type Session } from './api'
import type { Loaded } from './case'
import { h, show, tell } from './dom'
import { fixed } from './format'
import { problemBox } from './problem'
import { runLayers } from './run'
import { nameOf } from './structures'
import { NoWebGL, openViewer, type Viewer } from './viewer'

interface What {
  session: Session
  hidden: ReadonlySet<number> // labels
  signal: AbortSignal // that the page was left
  opened(v: Viewer): void
}

export async function picture(l: Loaded, box: HTMLElement, w: What): Promise<void> {
  const id = l.scan.id
  const run = l.reading?.run && l.result?.fmri // before readings held it, a run had no mean image
  if (w.session.role === 'researcher' && !run) {
    // The scan shows a face; the picture of the labels shows the brain, and so does the mean of a run.
    show(box, h('img', { src: `/v1/scans/${id}/preview.png`, alt: 'Outlines of the labelled structures over the scan' }))
    return
  }
  const canvas = h('canvas', { id: 'viewer', tabindex: '0', role: 'application', 'aria-label': 'The scan in three planes. The patient’s right is on the left.' })
  const where = h('span', { class: 'where' })
  let viewer: Viewer | undefined
  const veil = h('p', { class: 'veil', role: 'status' }, 'Loading the scan')
  const opacity = h('input', { type: 'range', id: 'opacity', min: 0, max: 1, step: 0.05, value: 0.4 })
  const outline = h('input', { type: 'checkbox', id: 'outline' })
  const structures = l.reading?.structures ?? []
  const layers = run ? runLayers(id, run) : []
  const layer = h('select', { id: 'layer' }, layers.map((x) => h('option', { value: x.value }, x.words)))
  const scale = h('span', { class: 'scale' })
  const width = h('input', { type: 'number', id: 'window', step: 'any', min: 0 })
  const level = h('input', { type: 'number', id: 'level', step: 'any' })
  const tools = h(
    'div',
    { class: 'tools' },
    run && h('label', {}, 'Overlay ', layer),
    run && scale,
    l.result && h('label', { for: 'opacity' }, run ? 'Opacity ' : 'Labels ', opacity),
    l.result && h('label', {}, outline, ' outline'),
    h('label', {}, 'Window ', width),
    h('label', {}, 'Level ', level),
    h('button', { type: 'button', class: 'quiet', onclick: () => viewer && windowed(...viewer.autoWindow(), true) }, 'reset'),
    h('span', { class: 'spring' }),
    where,
  )
  show(box, h('div', { class: 'canvas' }, canvas, veil), tools, h('p', { class: 'dim hint' }, 'Click or arrow keys: crosshair. Right drag: window and level. Wheel: slices. The patient’s right is on the left.'))
  const round = (v: number): string => String(Number(v.toPrecision(3)))
  const windowed = (a: number, b: number, apply = false): void => {
    width.value = round(b - a)
    level.value = round((a + b) / 2)
    if (apply) viewer?.window(a, b)
  }
  const labelName = (n: number): string => {
    const s = structures.find((x) => x.label === n)
    return s ? nameOf(l.reading, s.structure) : n ? `label ${n}` : 'outside of the labels'
  }
  const axis = (v: number, plus: string, minus: string): string => `${v < -0.05 ? minus : plus} ${Math.abs(v).toFixed(1)}`
  try {
    viewer = await openViewer({
      canvas,
      image: run ? `/v1/scans/${id}/run/mean.nii.gz` : `/v1/scans/${id}/image.nii.gz`,
      labels: l.result && `/v1/scans/${id}/segmentation.nii.gz`,
      structures,
      signal: w.signal,
      progress: (t) => (veil.textContent = t),
      windowed: (a, b) => windowed(a, b),
      moved: (at) => show(where, h('span', { class: 'mm' }, `${axis(at.mm[0], 'R', 'L')}  ${axis(at.mm[1], 'A', 'P')}  ${axis(at.mm[2], 'S', 'I')} mm`), l.result && h('b', {}, labelName(at.label)), h('span', { class: 'dim' }, at.map === undefined ? `value ${round(at.value)}` : `${layer.selectedOptions[0]?.text ?? ''} ${at.map ? fixed(at.map, 2) : '–'}`)),
    })
  } catch (e) {
    if (w.signal.aborted) return
    const p = e instanceof NoWebGL ? { type: '', title: 'The viewer cannot run here', status: 0, detail: e.message } : asProblem(e)
    show(box, problemBox(p, () => void picture(l, box, w)), l.result && h('img', { src: `/v1/scans/${id}/preview.png`, alt: 'Outlines of the labelled structures over the scan' }))
    return
  }
  if (w.signal.aborted) {
    viewer.leave()
    return
  }
  w.opened(viewer)
  veil.remove()
  canvas.dataset.ready = 'true'
  viewer.hidden(w.hidden)
  opacity.addEventListener('input', () => viewer?.opacity(Number(opacity.value)))
  layer.addEventListener('change', () => {
    // Labels let the anatomy be seen; of a map the colours count.
    opacity.value = layer.value ? '0.85' : '0.4'
    viewer?.opacity(Number(opacity.value))
    viewer?.lay(layers.find((x) => x.value === layer.value)?.path).then(
      (ends) => {
        show(scale, ends && [h('span', { class: 'heat' }), `${fixed(ends[0], 2)} to ${fixed(ends[1], 2)}`])
        layer.dataset.shown = layer.value
      },
      (e) => !w.signal.aborted && tell(asProblem(e).title),
    )
  })
  outline.addEventListener('change', () => viewer?.outline(outline.checked))
  for (const one of [width, level]) one.addEventListener('change', () => viewer?.window(Number(level.value) - Number(width.value) / 2, Number(level.value) + Number(width.value) / 2))
}
