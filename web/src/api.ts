// Calls to the service. Types come from its contract.
import type { components } from './api.gen'

type Schemas = components['schemas']
export type AgePrior = Schemas['AgePrior']
export type AuditEntry = Schemas['AuditEntry']
export type Case = Schemas['Case']
export type CaseList = Schemas['CaseList']
export type Counts = Schemas['CaseCounts']
export type Decision = Schemas['Decision']
export type FMRI = Schemas['FMRI']
export type FMRIStructure = Schemas['FMRIStructure']
export type Hold = Schemas['Hold']
export type Key = Schemas['Key']
export type ModelCard = Schemas['ModelCard']
export type Problem = Schemas['Problem']
export type Reading = Schemas['Reading']
export type Curve = Schemas['Curve']
export type Result = Schemas['Result']
export type Review = Schemas['Review']
export type Scan = Schemas['Scan']
export type ScanEvent = Schemas['ScanEvent']
export type Score = Schemas['Score']
export type ScoreInWords = Schemas['ScoreInWords']
export type Session = Schemas['Session']
export type SettingsVersion = Schemas['SettingsVersion']
export type SiteSettings = Schemas['SiteSettings']
export type Structure = Schemas['Structure']
export type Timeline = Schemas['Timeline']
export type Volume = Schemas['Volume']

export class ProblemError extends Error {
  constructor(readonly problem: Problem) {
    super(problem.detail ?? problem.title)
  }
  get type(): string {
    return this.problem.type.replace('/problems/', '')
  }
}

let csrf = ''
let signedOut: () => void = () => {}
let refused: () => void = () => {}

/** What to do when the session has ended, and when a change was refused as not of this session. */
export function onSession(on: { ended(): void; refused(): void }): void {
  signedOut = on.ended
  refused = on.refused
}

export function useSession(s: Session): void {
  csrf = s.csrf_token ?? ''
}

interface Options {
  body?: unknown
  unattended?: boolean // nobody asked for it: does not keep the session alive
  signal?: AbortSignal
  keepalive?: boolean
}

/** Headers of a changing request. */
export function changing(): Record<string, string> {
  return { 'X-CSRF-Token': csrf }
}

export async function raw(method: string, path: string, o: Options = {}): Promise<Response> {
  const headers: Record<string, string> = method === 'GET' ? {} : changing()
  if (o.body !== undefined) headers['Content-Type'] = 'application/json'
  if (o.unattended) headers['X-Unattended'] = '1'
  const init: RequestInit = { method, headers, credentials: 'same-origin' }
  if (o.body !== undefined) init.body = JSON.stringify(o.body)
  if (o.signal) init.signal = o.signal
  if (o.keepalive) init.keepalive = true
  let res: Response
  try {
    res = await fetch(path, init)
  } catch (e) {
    if (o.signal?.aborted) throw e
    throw new ProblemError({ type: 'offline', title: 'The service does not answer', status: 0, detail: 'Check the network, then try again.' })
  }
  if (res.ok) return res
  const problem = await problemOf(res)
  if (res.status === 401) signedOut()
  else if (problem.type === '/problems/csrf') refused()
  throw new ProblemError(problem)
}

async function problemOf(res: Response): Promise<Problem> {
  try {
    return (await res.json()) as Problem
  } catch {
    return { type: 'unreadable', title: `The service answered ${res.status}`, status: res.status }
  }
}

export async function call<T>(method: string, path: string, o: Options = {}): Promise<T> {
  const res = await raw(method, path, o)
  return (res.status === 204 ? undefined : await res.json()) as T
}

/** Any error as a problem to show. */
export function asProblem(e: unknown): Problem {
  if (e instanceof ProblemError) return e.problem
  return { type: 'page', title: 'The page made a mistake', status: 0, detail: String(e) }
}
