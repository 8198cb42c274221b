// Model cards, one click away from each score.
import { asProblem, call, type ModelCard } from './api'
import { type Child, dialog, h, show } from './dom'
import { typeset } from './format'
import { problemBox } from './problem'

let cards: Promise<ModelCard[]> | undefined

export function showCard(model: string): void {
  const body = h('div', { class: 'card-text', tabindex: '0' }, 'Loading')
  const d = dialog('Model card', 'wide', body, h('p', { class: 'ends' }, h('button', { type: 'button', onclick: () => d.close() }, 'Close')))
  cards ??= call<{ models: ModelCard[] }>('GET', '/v1/models').then((l) => l.models)
  cards.then(
    (all) => {
      const card = all.find((c) => c.name === model)
      show(body, card ? markdown(card.card) : `The release that runs here has no card named ${model}: the result was made with another. Its hash stands with the result.`)
    },
    (e) => {
      cards = undefined
      show(body, problemBox(asProblem(e)))
    },
  )
}

/** The little Markdown that the cards are written in: headings, nested lists, paragraphs. */
function markdown(text: string): Child[] {
  const out: HTMLElement[] = []
  let lists: HTMLUListElement[] = []
  for (const line of text.split('\n')) {
    const item = /^( *)- (.*)$/.exec(line)
    if (item) {
      const depth = item[1]!.length / 2
      while (lists.length > depth + 1) lists.pop()
      while (lists.length <= depth) {
        const list = h('ul')
        const parent = lists.at(-1)?.lastElementChild ?? lists.at(-1)
        if (parent) parent.append(list)
        else out.push(list)
        lists.push(list)
      }
      lists.at(-1)!.append(h('li', {}, typeset(item[2]!)))
      continue
    }
    lists = []
    const heading = /^(#+) (.*)$/.exec(line)
    if (heading) out.push(heading[1]!.length === 1 ? h('h3', { class: 'card-name' }, heading[2]!) : h('h3', {}, heading[2]!))
    else if (line.trim()) out.push(h('p', {}, typeset(line)))
  }
  return out
}
