// Numbers and dates as they are read in a report. A minus is U+2212, as wide as a plus.

export const fixed = (v: number, digits: number): string => v.toFixed(digits).replace(/^-(0(\.0+)?)$/, '$1').replace('-', '−')

/** Thousands apart by a narrow no-break space. */
export function grouped(v: number): string {
  return Math.round(v)
    .toString()
    .replace('-', '−')
    .replace(/\B(?=(\d{3})+(?!\d))/g, '\u202f')
}

/** Two figures, or whole numbers from ten. */
export function ratio(v: number): string {
  return v >= 9.95 ? grouped(v) : String(Number(v.toPrecision(2)))
}

/** An end of a likelihood ratio's interval: what is beyond a hundredth and a thousand says no more. */
export const bound = (v: number): string => (v < 0.01 ? '<0.01' : v > 1000 ? '>1\u202f000' : ratio(v))

/** Of a probability, with a decimal where it is small or near one. */
export const percent = (p: number): string => `${fixed(100 * p, p < 0.2 || p > 0.98 ? 1 : 0)} %`

export function percentile(v: number): string {
  if (v < 1) return '<1'
  if (v > 99) return '>99'
  return v.toFixed(0)
}

/** With a plus too; what rounds to nothing has no sign. */
export const signed = (v: number, digits: number): string => (Number(v.toFixed(digits)) > 0 ? '+' : '') + fixed(v, digits)

/** Today's time, else day and time, in the reader's own zone. */
export function when(iso: string, now = new Date()): string {
  const d = new Date(iso)
  const time = d.toLocaleTimeString('en-GB', { hour: '2-digit', minute: '2-digit' })
  if (d.toDateString() === now.toDateString()) return time
  const year = d.getFullYear() === now.getFullYear() ? undefined : 'numeric'
  return `${d.toLocaleDateString('en-GB', { day: 'numeric', month: 'short', year })} ${time}`
}

/** The beginning of a day of the reader's own zone, or of one that comes days later. */
export function midnight(day: string, later = 0): string {
  const d = new Date(`${day}T00:00`)
  d.setDate(d.getDate() + later)
  return d.toISOString()
}

export function age(years: number | undefined, sex: string): string {
  return `${years === undefined ? '–' : Number(years.toFixed(1))} ${sex}`
}

export function bytes(n: number): string {
  return n < 1e6 ? `${(n / 1e3).toFixed(0)} kB` : `${(n / 1e6).toFixed(1)} MB`
}

export const upperFirst = (s: string): string => s.charAt(0).toUpperCase() + s.slice(1)

/** A text of the result document, which is plain ASCII and names flags as the document does, as a reader is used to it. */
export const typeset = (s: string): string =>
  s
    .replaceAll('+-', '±')
    .replaceAll('mm3', 'mm³')
    .replaceAll('>=', '≥')
    .replaceAll('<=', '≤')
    .replaceAll('"none"', '“not flagged”')
    .replaceAll('"review"', '“worth a second look”')
    .replaceAll('"flagged"', '“flagged”')
    .replace(/(^|[\s(])-(?=\d)/g, '$1−')

/** A phrase as a sentence. */
export const sentence = (s: string): string => upperFirst(/[.!?]$/.test(s) ? s : `${s}.`)

/** Both. */
export const prose = (s: string): string => sentence(typeset(s))

export const conditions: Record<string, string> = {
  alzheimers: 'Alzheimer’s disease',
  parkinsons: 'Parkinson’s disease',
  mesial_temporal_sclerosis: 'Mesial temporal sclerosis',
}

export const decided: Record<string, string> = { accept: 'Accepted', amend: 'Amended', reject: 'Rejected' }
