// Handing over a scan from the browser: drop, progress, cancel, and what became of it.
import { changing, type Problem, type Scan } from './api'
import { dialog, h, onEscape, show, tell } from './dom'
import { bytes } from './format'
import { type Following, followScan } from './listen'
import type { Page } from './main'
import { problemBox } from './problem'

/** The form over the page; file is one that was dropped there. */
export function uploadDialog(file?: File): void {
  const form = uploadForm(file)
  // Neither Escape nor the button drops an upload unasked.
  const close = (): void => (form.sending() ? tell('The scan is being sent. Cancel that first.') : d.close())
  const d = dialog('Hand over a scan', 'narrow', form.el, h('p', { class: 'ends' }, h('button', { type: 'button', onclick: close }, 'Close')))
  onEscape(d, close)
  d.addEventListener('close', () => form.leave())
}

/** All that an uploader may do: the worklist is for readers. */
export function uploadPage(into: HTMLElement): Page {
  const form = uploadForm(undefined, false)
  show(into, h('div', { class: 'list' }, h('section', { class: 'first' }, h('h1', {}, 'Hand over a scan'), h('p', {}, 'A T1-weighted scan of a whole adult head, as NIfTI. What became of it stands here; its result is for clinicians, on their worklist.'), form.el)))
  return { leave: () => form.leave() }
}

interface Form {
  el: HTMLElement
  sending(): boolean
  /** Whether something of a scan was filled in that is not stored yet. */
  filled(): boolean
  leave(): void
}

export function uploadForm(dropped?: File, mayOpen = true): Form {
  let file: File | undefined
  let going: XMLHttpRequest | undefined
  let following: Following | undefined

  const input = h('input', { type: 'file', id: 'scan-file', accept: '.nii,.gz', class: 'file' })
  const name = h('span')
  const choose = h('label', { for: 'scan-file' })
  const drop = h('div', { class: 'drop' }, name, choose, input)
  const subject = h('input', { id: 'up-subject', required: true, maxlength: 200, autocomplete: 'off' })
  const age = h('input', { id: 'up-age', type: 'number', min: 0, max: 130, step: 'any', required: true, autocomplete: 'off' })
  const sex = h('select', { id: 'up-sex', required: true }, h('option', { value: '' }, ''), h('option', { value: 'F' }, 'female'), h('option', { value: 'M' }, 'male'))
  const scanner = h('input', { id: 'up-scanner', maxlength: 100, autocomplete: 'off' })
  const send = h('button', { class: 'main' }, 'Send')
  const cancel = h('button', { type: 'button', onclick: () => going?.abort(), hidden: true }, 'Cancel')
  const bar = h('progress', { max: 1, value: 0, hidden: true, 'aria-label': 'Sent so far' })
  const sent = h('p') // the bar tells it to who hears the page
  const says = h('div', { 'aria-live': 'polite' })
  const wrong = h('div')

  const hold = (f: File | undefined): void => {
    file = f
    name.textContent = f ? `${f.name}, ${bytes(f.size)}; or ` : 'Drop a .nii or .nii.gz file here, or '
    choose.textContent = f ? 'choose another' : 'choose one'
  }
  const take = (f: File | undefined): void => {
    if (!f) return
    hold(f)
    show(says)
    show(wrong)
  }
  input.addEventListener('change', () => take(input.files?.[0]))
  for (const over of ['dragenter', 'dragover']) {
    drop.addEventListener(over, (e) => {
      e.preventDefault()
      drop.classList.add('over')
    })
  }
  drop.addEventListener('dragleave', () => drop.classList.remove('over'))
  drop.addEventListener('drop', (e) => {
    e.preventDefault()
    e.stopPropagation() // the worklist behind takes files too
    drop.classList.remove('over')
    take(e.dataTransfer?.files[0])
  })

  hold(dropped)

  const idle = (on: boolean): void => {
    send.hidden = !on
    cancel.hidden = on
    bar.hidden = on
    sent.hidden = on
  }
  // One name per file and form, so that sending again after a cut never doubles a scan.
  let attempt = ''
  const failed = (p: Problem): void => {
    going = undefined
    idle(true)
    show(says)
    show(wrong, problemBox(p))
  }

  const submit = (e: Event): void => {
    e.preventDefault()
    if (!file) {
      show(says, h('p', { class: 'note' }, 'Choose a file first.'))
      input.focus()
      return
    }
    const metadata = { subject_id: subject.value.trim(), age_years: Number(age.value), sex: sex.value, modality: 'T1w', ...(scanner.value.trim() && { scanner: scanner.value.trim() }) }
    const label = JSON.stringify([metadata, file.name, file.size, file.lastModified])
    if (!attempt.endsWith(label)) attempt = randomName() + label
    const body = new FormData()
    body.append('metadata', new Blob([JSON.stringify(metadata)], { type: 'application/json' }))
    body.append('scan', file)
    const x = new XMLHttpRequest()
    going = x
    x.open('POST', '/v1/scans')
    for (const [k, v] of Object.entries(changing())) x.setRequestHeader(k, v)
    x.setRequestHeader('Idempotency-Key', attempt.slice(0, nameLength))
    x.responseType = 'json'
    x.upload.addEventListener('progress', (p) => {
      if (p.lengthComputable) {
        bar.value = p.loaded / p.total
        show(sent, p.loaded < p.total && `${bytes(p.loaded)} of ${bytes(p.total)}`)
        if (p.loaded === p.total) show(says, h('p', {}, 'Sent. The service is checking and storing it.'))
      }
    })
    x.addEventListener('load', () => {
      going = undefined
      if (x.status === 200 || x.status === 202) follow(x.response as Scan, x.status === 200)
      else failed((x.response as Problem | null) ?? { type: '', title: `The service answered ${x.status}`, status: x.status })
    })
    x.addEventListener('error', () => failed({ type: '', title: 'The connection was cut', status: 0, detail: 'Send it again: a scan that did arrive is not doubled.' }))
    x.addEventListener('abort', () => {
      going = undefined
      idle(true)
      show(says, h('p', { class: 'note' }, bar.value < 1 ? 'Cancelled. Nothing was stored.' : 'Cancelled. All of it was sent already: if it was stored in time, it is on the worklist.'))
    })
    idle(false)
    show(says)
    show(wrong)
    bar.value = 0
    x.send(body)
  }

  const follow = (scan: Scan, again: boolean): void => {
    idle(true)
    // The next file is another person's, of the same scanner as a rule.
    hold(undefined)
    for (const asked of [input, subject, age, sex]) asked.value = ''
    const link = mayOpen && h('a', { href: `#/case/${scan.id}` }, 'Open the case')
    const state = h('p')
    following?.stop()
    following = followScan(scan, {
      heard(e) {
        const words: Record<string, string> = {
          received: 'It will be analysed within seconds.',
          checked: 'Checked; the structures are being outlined.',
          segmented: 'Outlined; the structures are being measured.',
          measured: 'Measured; the patterns are being scored.',
          scored: 'Done.',
          refused: 'Refused: it cannot be analysed.',
          failed: 'The analysis failed.',
          cancelled: 'Cancelled.',
        }
        show(state, words[e.state] ?? e.state, e.reasons?.map((r) => [' ', r.text]))
      },
    })
    show(says, h('p', {}, again ? `These bytes are already here for subject ${scan.subject_id}: the same case.` : `Stored for subject ${scan.subject_id}.`), state, following.el, link && h('p', {}, link))
    if (link) link.focus()
  }

  const el = h(
    'form',
    { class: 'upload', onsubmit: submit },
    drop,
    h('div', { class: 'fields' }, field('up-subject', 'Subject', subject), field('up-age', 'Age at the scan, years', age), field('up-sex', 'Sex', sex), field('up-scanner', 'Scanner (optional)', scanner)),
    bar,
    h('div', {}, sent, says, wrong),
    h('p', { class: 'ends' }, send, cancel),
  )
  return {
    el,
    sending: () => going !== undefined,
    filled: () => file !== undefined || subject.value.trim() !== '',
    leave: () => {
      going?.abort()
      following?.stop()
    },
  }
}

// crypto.randomUUID is there over TLS only; a clinic's network may have none.
const nameLength = 32
const randomName = (): string => [...crypto.getRandomValues(new Uint8Array(nameLength / 2))].map((b) => b.toString(16).padStart(2, '0')).join('')

export const field = (id: string, label: string, input: HTMLElement): HTMLElement => h('div', { class: 'field' }, h('label', { for: id }, label), input)

/** How the first scan gets here: the page of a site that has none. */
export function firstScan(mayUpload: boolean): { el: HTMLElement; busy(): boolean; leave(): void } {
  const command = `curl -H "Authorization: Bearer $KEY" \\
  -F 'metadata={"subject_id":"S1","age_years":71,"sex":"F","modality":"T1w"};type=application/json' \\
  -F scan=@scan.nii.gz ${location.origin}/v1/scans`
  const copied = h('span', { role: 'status' })
  const copy = async (): Promise<void> => {
    try {
      await navigator.clipboard.writeText(command) // not there without TLS
      copied.textContent = 'Copied.'
    } catch {
      getSelection()?.selectAllChildren(el.querySelector('#command')!)
      copied.textContent = 'Copying is not allowed here; the text is marked, press Ctrl and C.'
    }
  }
  const form = mayUpload ? uploadForm() : undefined
  const el = h(
    'section',
    { class: 'first' },
    h('h2', {}, 'No scan has come in yet'),
    h('p', {}, 'A T1-weighted scan of a whole adult head, as NIfTI, in voxels of about 1 mm, without contrast agent. It is on this list at once and measured within seconds; this page shows it by itself.'),
    form && [h('h3', {}, 'From this browser'), form.el],
    h('h3', {}, 'From an imaging system or a script'),
    h('pre', { tabindex: '0' }, h('code', { id: 'command' }, command)),
    h(
      'p',
      { class: 'ends' },
      h('button', { type: 'button', id: 'command-copy', onclick: () => void copy() }, 'Copy'),
      copied,
      h('a', { href: '/docs#createScan' }, 'All of what can be said of a scan'),
    ),
    h('p', { class: 'help' }, 'KEY is a key with the role uploader. An administrator makes one: ', h('code', {}, 'neuroscreen keys create pacs --role uploader')),
  )
  return { el, busy: () => form?.filled() ?? false, leave: () => form?.leave() }
}
