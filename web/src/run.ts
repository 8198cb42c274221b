// A BOLD run on its case page: how the head held still, what that leaves to be
// believed, and what was read from the signal.
import type { FMRI, FMRIStructure, Reading, Result } from './api'
import { type Child, h } from './dom'
import { fixed, grouped } from './format'
import { quality } from './quality'
import { nameOf, paired } from './structures'

const experimental = (): HTMLElement => h('span', { class: 'chip' }, 'experimental')
const noReference = 'No flag and no score rests on these measures, and there are no reference values: nothing here says whether a value is usual.'

/** What the clinician needs first: can this run be used? */
export function runVerdicts(r: Result, f: FMRI, reading: Reading | undefined): HTMLElement[] {
  const reasons = r.qc.reasons ?? []
  const run = reading?.run
  return [
    quality(
      'Motion and quality',
      r.qc,
      reasons,
      [
        reasons.length === 0 && h('p', { class: 'says' }, 'Motion and noise are within the limits.'),
        run && h('dl', { class: 'run-numbers' }, run.numbers.map((n) => h('div', { class: n.over ? 'over' : '' }, h('dt', {}, n.name), h('dd', {}, h('b', {}, n.value), n.limit && h('small', {}, n.limit))))),
      ],
      'Metrics',
      'Findings in the anatomy, artefacts beside the brain and mixed-up patients are not detected. Look at the source images.',
    ),
    h(
      'article',
      { class: 'verdict' },
      h('h2', {}, h('span', {}, 'Networks'), h('span', { class: 'headline' }, withheld(f) ? 'Withheld' : (f.not_comparable ?? []).length > 0 ? 'Not to be compared' : 'Measured')),
      (run?.worth ?? []).map((t) => h('p', { class: 'says' }, t)),
      h('p', { class: 'says dim' }, noReference),
      h('p', { class: 'class' }, experimental()),
    ),
  ]
}

export const withheld = (f: FMRI): boolean => (f.withheld ?? []).length > 0 || (f.connectomes ?? []).length === 0

/** Facts of the recording, for the head of the page. */
export const recording = (f: FMRI): string => `${f.frames} frames of ${Number(f.tr_s.toPrecision(4))} s, ${fixed(f.seconds / 60, 1)} min`

/** Pictures and numbers behind the verdicts. goTo shows a structure's label. */
export function runSections(id: string, f: FMRI, reading: Reading | undefined, goTo: (label: number) => void): Child[] {
  const file = (name: string): string => `/v1/scans/${id}/run/${name}`
  const picture = (name: string, alt: string, caption: string): HTMLElement =>
    h('figure', { class: 'drawn' }, h('a', { href: file(name), target: '_blank', rel: 'noopener' }, h('img', { src: file(name), alt, loading: 'lazy' })), h('figcaption', {}, caption))
  const link = (name: string, words: string): HTMLElement => h('li', {}, h('a', { href: file(name), download: name }, name), ` ${words}`)
  const read = !withheld(f)
  if (!reading?.run) {
    return [h('section', {}, h('h2', {}, 'Over time'), h('p', { class: 'dim' }, 'This result was made before pictures and maps were kept with it. Analyse the run again to get them.')), structures(f, reading, goTo)]
  }
  return [
    h(
      'section',
      { class: 'over-time' },
      h('h2', {}, 'Over time'),
      picture(
        'carpet.png',
        `Movement and DVARS of ${f.frames} frames over the carpet plot of the brain. ${(f.quality.outlier_frames ?? []).length} frames are outliers.`,
        'Above: movement and change of the signal from frame to frame, with their limits. Below: the signal of the brain before cleaning, rows of neighbouring voxels ordered by tissue. Stripes through all tissues are motion, breathing or the scanner.',
      ),
    ),
    read &&
      h(
        'section',
        { class: 'networks' },
        h('h2', {}, 'Networks ', experimental()),
        h(
          'div',
          { class: 'pair' },
          picture('connectome.png', 'Connectome: Fisher’s z between the structures. The table below it has the strongest pairs.', 'Fisher’s z between the mean signals of structures, cleaned, the global signal left in. One structure’s row lies left of its name, the other’s column above its own row.'),
          picture('maps.png', 'ALFF, fALFF and ReHo in colours over axial cuts of the mean image', 'Over the mean image. The patient’s right is on the left; lighter is more. The viewer above shows the same in three planes.'),
        ),
        strongest(f, reading),
      ),
    structures(f, reading, goTo),
    h(
      'section',
      { class: 'files' },
      h('h2', {}, 'Files'),
      h('ul', {}, link('mean.nii.gz', 'mean of the aligned frames, inside of the skull'), read && [link('alff.nii.gz', 'ALFF, % of the voxel’s mean'), link('falff.nii.gz', 'fALFF'), link('reho.nii.gz', 'ReHo, Kendall’s W')]),
    ),
  ]
}

/** The pairs that differ most from 0, of both connectomes: what the picture shows, in words. */
function strongest(f: FMRI, reading: Reading | undefined): Child {
  const [left, removed] = [f.connectomes?.find((c) => !c.global_signal_removed), f.connectomes?.find((c) => c.global_signal_removed)]
  if (!left?.nodes || !left.fisher_z) return false
  const nodes = left.nodes
  const pairs = nodes.flatMap((a, i) => nodes.slice(0, i).map((b, j) => ({ a, b, z: left.fisher_z![i]![j]! })))
  pairs.sort((x, y) => Math.abs(y.z) - Math.abs(x.z))
  const other = (a: string, b: string): number | undefined => {
    const [i, j] = [removed?.nodes?.indexOf(a) ?? -1, removed?.nodes?.indexOf(b) ?? -1]
    return i < 0 || j < 0 ? undefined : removed?.fisher_z?.[i]?.[j]
  }
  const summary = (name: string, c: typeof left | undefined): Child => c && h('p', { class: 'dim' }, `${name}: ${c.degrees_of_freedom} degrees of freedom, standard error of z at least ${fixed(c.standard_error, 2)}; both halves of the run agree to r ${fixed(c.split_half_r, 2)}, reliability ${fixed(c.reliability, 2)}.`)
  return h(
    'details',
    { class: 'pairs' },
    h('summary', {}, 'Strongest pairs, and how far to trust them'),
    summary('Global signal left in', left),
    summary('Taken out', removed),
    h(
      'table',
      { class: 'indices' },
      h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'Structures'), h('th', { scope: 'col', class: 'r' }, 'z'), h('th', { scope: 'col', class: 'r' }, 'z, global signal taken out'))),
      h('tbody', {}, pairs.slice(0, 15).map((p) => h('tr', {}, h('th', { scope: 'row' }, `${nameOf(reading, p.b)} – ${nameOf(reading, p.a).toLowerCase()}`), h('td', { class: 'r' }, fixed(p.z, 2)), h('td', { class: 'r dim' }, number(other(p.a, p.b), 2))))),
    ),
  )
}

const number = (v: number | null | undefined, digits: number): string => (v === null || v === undefined ? '–' : fixed(v, digits))

function structures(f: FMRI, reading: Reading | undefined, goTo: (label: number) => void): HTMLElement {
  const cells = (s: FMRIStructure | undefined): Child =>
    s
      ? [
          h('td', { class: 'r side' }, h('button', { type: 'button', class: 'go', 'aria-label': `${nameOf(reading, s.structure)}, ${grouped(s.voxels)} voxels: go there`, onclick: () => goTo(s.label) }, grouped(s.voxels))),
          h('td', { class: 'r' }, number(s.tsnr, 0)),
          h('td', { class: 'r' }, number(s.alff_percent, 2)),
          h('td', { class: 'r' }, number(s.falff, 2)),
          h('td', { class: 'r' }, number(s.reho, 2)),
        ]
      : h('td', { class: 'side', colspan: 5 })
  const columns = (): Child => [h('th', { scope: 'col', class: 'r side' }, 'voxels'), h('th', { scope: 'col', class: 'r' }, h('abbr', { title: 'Mean over SD in time' }, 'tSNR')), h('th', { scope: 'col', class: 'r' }, 'ALFF, %'), h('th', { scope: 'col', class: 'r' }, 'fALFF'), h('th', { scope: 'col', class: 'r' }, 'ReHo')]
  return h(
    'section',
    { class: 'signal' },
    h('h2', {}, 'Structures ', experimental()),
    h('p', { class: 'dim' }, 'Means over a structure’s voxels. Its voxels lead to it in the picture.'),
    h(
      'div',
      { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Structures' },
      h(
        'table',
        { class: 'volumes' },
        h('thead', {}, h('tr', { class: 'sides' }, h('td', {}), h('th', { scope: 'colgroup', colspan: 5, class: 'side' }, 'Left or midline'), h('th', { scope: 'colgroup', colspan: 5, class: 'side' }, 'Right')), h('tr', {}, h('th', { scope: 'col' }, 'Structure'), columns(), columns())),
        h('tbody', {}, paired(f.structures ?? [], reading).map((row) => h('tr', {}, h('th', { scope: 'row' }, row.name), cells(row.sides[0]), cells(row.sides[1])))),
      ),
    ),
  )
}

/** The layers that the viewer can lay over the mean image. */
export const runLayers = (id: string, f: FMRI): { value: string; words: string; path?: string }[] => [
  { value: '', words: 'structures' },
  ...(withheld(f) ? [] : ['alff', 'falff', 'reho'].map((name) => ({ value: name, words: { alff: 'ALFF', falff: 'fALFF', reho: 'ReHo' }[name]!, path: `/v1/scans/${id}/run/${name}.nii.gz` }))),
]
