// What the scores of a result say, and how far to believe them.
import type { Result, Score, ScoreInWords } from './api'
import { showCard } from './cards'
import type { Loaded } from './case'
import { type Child, h } from './dom'
import { bound, conditions, percent, prose, ratio, typeset, when } from './format'
import { type Mark, markOf, sign } from './marks'
import { quality } from './quality'
import { nameOf } from './structures'

interface Said {
  s: Score
  words: ScoreInWords | undefined // none of a result from before they were kept
}

/** The deciding scores, what asks for a look first, and the image's quality. */
export function verdicts(l: Loaded, r: Result, excluded: ReadonlySet<string>): Child {
  const scores: Said[] = (r.scores ?? []).map((s, n) => ({ s, words: l.reading?.scores[n] }))
  // The first of a condition decides, the others stand beside it.
  const of = (condition: string): Said[] => scores.filter(({ s }) => s.condition === condition)
  const deciding = scores.filter((x) => of(x.s.condition)[0] === x)
  const asks = ({ s }: Said): number => (s.abstained !== null ? 3 : { flagged: 0, review: 1, none: 2 }[s.flag])
  deciding.sort((a, b) => asks(a) - asks(b))
  return [
    deciding.map((x, n) => verdict(l, x, n > 0 && asks(deciding[0]!) < 2, of(x.s.condition).slice(1), excluded)),
    quality('Image quality', r.qc, (r.qc.reasons ?? []).filter((x) => !ofTheNorm.has(x.code)), false, 'Metrics and limits', 'Tumours, strokes, haemorrhages, shunts and mixed-up patients are not detected.'),
  ]
}

/** Codes of reasons about the comparison with the norm, which say nothing of the image: those of Reason.OfTheNorm. */
export const ofTheNorm: ReadonlySet<string> = new Set(['segmenter-not-calibrated', 'site-not-calibrated', 'site-shift-not-applicable', 'site-shift-other-scanner'])

/** What the result was scored without, who left it out and why. */
export function amended(l: Loaded, r: Result): Child {
  const all = r.amendment?.left_out ?? []
  const from = r.amendment?.from_version
  return [...new Set(all.map((x) => x.decision))].map((n) => {
    const d = l.reviews.find((x) => x.number === n)
    return h(
      'article',
      { class: 'note left-out' },
      h('p', {}, h('b', {}, `Left out${d ? ` by ${d.mine ? 'you' : d.by}, ${when(d.at)}` : ''}: `), all.filter((x) => x.decision === n).map((x) => nameOf(l.reading, x.structure)).join(', ')),
      d?.comment && h('p', { class: 'comment' }, d.comment),
      h('p', { class: 'dim' }, `Shown and used for nothing${from ? `; scored anew from the volumes of version ${from}` : ''}. Amend to take it back in.`),
    )
  })
}

const evidence: Record<string, string> = { 'external-cohort': 'fitted on a cohort', 'published-effects': 'from published effects', experimental: 'experimental' }

const cardButton = (model: string): HTMLElement => h('button', { type: 'button', class: 'quiet', onclick: () => showCard(model) }, 'Model card')

// Below a raised score another says less, so that all and the image's quality fit
// on the first screen.
function verdict(l: Loaded, { s, words }: Said, brief: boolean, beside: Said[], excluded: ReadonlySet<string>): HTMLElement {
  const kind: Mark['kind'] = s.abstained !== null ? 'abstained' : s.flag === 'flagged' ? 'flagged' : s.flag === 'review' ? 'review' : 'none'
  const restsOn = [...excluded].filter((e) => (s.contributions ?? []).some((c) => c.feature === e || (c.feature === 'hippocampal_asymmetry_percent' && e.endsWith('-Hippocampus'))))
  const why = s.explanation
  const list = (title: string, items: string[] | null): Child => items && items.length > 0 && [h('h3', {}, title), h('ul', {}, items.map((t) => h('li', {}, typeset(t))))]
  // A reading from before the short form was kept has the whole of it.
  const short = words?.short ?? words
  const features = words?.features ?? (why.reasons ?? []).map(prose)
  return h(
    'article',
    { class: `verdict ${kind}` },
    h('h2', {}, sign(kind), h('span', {}, conditions[s.condition] ?? s.condition, s.side && `, ${s.side}`), h('span', { class: 'headline' }, s.abstained !== null ? 'No score' : markOf({ state: 'scored', flag: s.flag, condition: s.condition }).words)),
    s.abstained !== null
      ? h('p', { class: 'says' }, prose(s.abstained))
      : s.likelihood_ratio !== null && [
          h(
            'p',
            { class: 'numbers' },
            h('span', {}, h('small', {}, kind === 'none' ? h('abbr', { title: 'Likelihood ratio' }, 'LR') : 'Likelihood ratio'), h('b', {}, ratio(s.likelihood_ratio)), s.ci95 && h('small', {}, `95 %: ${bound(s.ci95[0]!)} to ${bound(s.ci95[1]!)}`)),
            s.prior !== null && s.posterior !== null && words
              ? h('span', {}, h('small', {}, 'Prior → posterior'), h('b', {}, `${percent(s.prior)} → ${percent(s.posterior)}`), h('small', { class: 'of' }, `if ${percent(s.prior)} of those scanned have it`))
              : h('span', {}, h('small', {}, 'Probability'), h('b', { class: 'dim' }, '–'), h('small', {}, s.posterior === null ? 'no prior is known' : 'made before its cohort and limits were kept with it: analyse the scan again')),
          ),
          kind !== 'none' && !brief && short && h('p', { class: 'says' }, short.text),
          short && h('p', { class: 'dim basis' }, typeset(`${short.cohort} ${short.limits}`)),
        ],
    restsOn.length > 0 && h('p', { class: 'note' }, `Rests on what was left out: ${restsOn.map((e) => nameOf(l.reading, e)).join(', ')}.`),
    kind !== 'none' && s.abstained === null && h('ul', { class: 'rests' }, features.slice(0, brief ? 1 : 2).map((t) => h('li', {}, t))),
    h('p', { class: 'class' }, h('span', { class: 'chip' }, evidence[s.evidence] ?? s.evidence), words && cardButton(words.model)),
    words &&
      h(
        'details',
        {},
        h('summary', {}, s.abstained !== null ? 'Why' : 'Reasons and doubts'),
        s.abstained === null && h('p', {}, words.text),
        list('What it rests on', why.reasons),
        list('What would change it', why.would_change),
        list('What is uncertain', why.uncertain),
        s.conformal && [
          h('h3', {}, 'With or without the condition', !s.conformal.validated && h('span', { class: 'tag' }, 'not validated')),
          h('p', {}, prose(s.conformal.text)),
          !s.conformal.validated && h('p', { class: 'dim' }, 'Not validated: on this program’s volumes nobody has counted yet how often such a set leaves out the truth. It may be more often than stated, until your site has tried it on people whose condition it knows.'),
        ],
        h('p', { class: 'dim' }, typeset(`${words.cohort} ${words.performance} ${words.limits}`)),
        h('p', { class: 'dim' }, s.intended_use),
        beside.map((b) => b.words && h('p', { class: 'dim' }, h('b', {}, `${b.words.title}: `), b.words.text, ' ', cardButton(b.words.model))),
      ),
  )
}
