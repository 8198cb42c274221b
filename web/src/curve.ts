// A structure's reference over age with the person's point in it.
import type { Curve, Volume } from './api'
import { svg } from './dom'
import { fixed } from './format'

const W = 260
const H = 168
const plot = { left: 34, right: 246, top: 10, bottom: 134 }

function niceStep(x: number): number {
  if (!(x > 0)) return 1
  const power = 10 ** Math.floor(Math.log10(x))
  return [1, 2, 5, 10].find((m) => x <= m * power * 1.0001)! * power
}

/** visits are other measurements of the same person: age and mm3. */
export function drawCurve(c: Curve, v: Volume, age: number | undefined, title: string, visits: { age: number; mm3: number }[] = []): SVGElement {
  const ages = c.points.map((p) => p.age_years)
  const half = 1.96 * v.standard_error_mm3
  const points = [...visits, ...(age === undefined ? [] : [{ age, mm3: v.mm3 }])]
  const first = Math.min(...ages, ...points.map((p) => p.age))
  const last = Math.max(...ages, ...points.map((p) => p.age))
  let lo = Math.max(0, Math.min(...c.points.map((p) => p.p5_mm3), v.mm3 - half, ...visits.map((p) => p.mm3)))
  let hi = Math.max(...c.points.map((p) => p.p95_mm3), v.mm3 + half, ...visits.map((p) => p.mm3))
  const step = niceStep((hi - lo) / 4)
  lo = Math.floor(lo / step) * step
  hi = Math.ceil(hi / step) * step
  const x = (a: number): string => (plot.left + ((a - first) / (last - first)) * (plot.right - plot.left)).toFixed(1)
  const y = (mm3: number): string => (plot.bottom - ((mm3 - lo) / (hi - lo)) * (plot.bottom - plot.top)).toFixed(1)
  const digits = Math.max(0, -Math.floor(Math.log10(step / 1000) + 1e-9))

  const grid: SVGElement[] = []
  for (let t = lo; t <= hi + step / 2; t += step) {
    grid.push(svg('path', { class: 'grid', d: `M${plot.left} ${y(t)}H${plot.right}` }))
    grid.push(svg('text', { class: 'tick', x: plot.left - 6, y: Number(y(t)) + 3.5, 'text-anchor': 'end' }, fixed(t / 1000, digits)))
  }
  for (let a = Math.ceil(first / 20) * 20; a <= last; a += 20) grid.push(svg('text', { class: 'tick', x: x(a), y: plot.bottom + 15, 'text-anchor': 'middle' }, a))

  const line = (f: (p: Curve['points'][number]) => number): string[] => c.points.map((p) => `${x(p.age_years)} ${y(f(p))}`)
  const band = `M${line((p) => p.p95_mm3).join('L')}L${line((p) => p.p5_mm3).reverse().join('L')}Z`
  const expected = v.expected_mm3 === null ? '' : `, ${Math.round(v.expected_mm3)} expected`
  return svg(
    'svg',
    { class: 'curve', viewBox: `0 0 ${W} ${H}`, role: 'img', 'aria-label': `${title} over age: ${Math.round(v.mm3)} mm³${expected}` },
    grid,
    svg('path', { class: 'band', d: band }),
    svg('path', { class: 'median', d: `M${line((p) => p.p50_mm3).join('L')}` }),
    visits.length > 0 && age !== undefined && svg('path', { class: 'visits', d: `M${points.sort((a, b) => a.age - b.age).map((p) => `${x(p.age)} ${y(p.mm3)}`).join('L')}` }),
    visits.map((p) => svg('circle', { class: 'visit', cx: x(p.age), cy: y(p.mm3), r: 3 })),
    age !== undefined && [
      svg('path', { class: 'error', d: `M${x(age)} ${y(Math.max(lo, v.mm3 - half))}V${y(v.mm3 + half)}` }),
      svg('circle', { class: 'point', cx: x(age), cy: y(v.mm3), r: 4.5 }),
    ],
    svg('text', { class: 'tick', x: plot.right, y: H - 4, 'text-anchor': 'end' }, 'age in years, volume in ml'),
  )
}

const z90 = 1.6448536 // of the 95th percentile

/** On which side of the reference interval, 5 to 95 %, a volume lies. */
export const outlying = (v: Volume): 'low' | 'high' | '' => (v.z === null || Math.abs(v.z) <= z90 ? '' : v.z < 0 ? 'low' : 'high')

/** Where a volume lies among healthy people: the strip from -4 to 4 SD, with 5 to 95 % marked. */
export function strip(v: Volume): SVGElement | null {
  if (v.z === null || v.z_ci95 === null) return null
  const x = (z: number): number => 40 + Math.max(-4, Math.min(4, z)) * 10
  return svg(
    'svg',
    { class: 'strip', viewBox: '0 0 80 14', 'aria-hidden': 'true' },
    svg('rect', { class: 'band', x: x(-z90), y: 2, width: x(z90) - x(-z90), height: 10 }),
    svg('path', { class: 'median', d: 'M40 2V12' }),
    svg('path', { class: 'error', d: `M${x(v.z_ci95[0]!).toFixed(1)} 7H${x(v.z_ci95[1]!).toFixed(1)}` }),
    svg('circle', { class: 'point', cx: x(v.z).toFixed(1), cy: 7, r: 3 }),
  )
}
