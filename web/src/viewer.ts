// The scan in three planes with the labels over it. NiiVue is loaded with the
// first picture: it is larger than all the rest of these pages.
import { raw, type Structure } from './api'

export interface Where {
  mm: [number, number, number] // right, anterior, superior
  label: number
  value: number
  map?: number // of the map that lies over the picture
}

export interface Viewer {
  /** To the middle of a label. False if the map does not have it. */
  goTo(label: number): boolean
  /** To where the crosshair began. */
  goToStart(): void
  /** Moves the crosshair along the picture's axes, mm to the right, anterior and superior. */
  move(by: [number, number, number]): void
  /** Of the labels, or of the map where one lies over the picture. */
  opacity(v: number): void
  /** Lays a map over the picture instead of the labels, and says where its colours end; none brings the labels back. */
  lay(path: string | undefined): Promise<[number, number] | undefined>
  hidden(labels: ReadonlySet<number>): void
  outline(on: boolean): void
  window(lo: number, hi: number): void
  /** The grey window that shows brain tissue well. */
  autoWindow(): [number, number]
  leave(): void
}

export interface ViewerOptions {
  canvas: HTMLCanvasElement
  image: string
  labels: string | undefined
  structures: Structure[]
  signal: AbortSignal
  progress(words: string): void
  moved(w: Where): void
  windowed(lo: number, hi: number): void
}

export class NoWebGL extends Error {}

export async function openViewer(o: ViewerOptions): Promise<Viewer> {
  if (!document.createElement('canvas').getContext('webgl2')) {
    throw new NoWebGL('This browser draws no WebGL 2, which the viewer needs. The picture in the report shows the outlines.')
  }
  o.progress('Loading the scan')
  const bytes = async (path: string): Promise<ArrayBuffer> => (await raw('GET', path, { signal: o.signal })).arrayBuffer()
  const [{ Niivue, NVImage, DRAG_MODE, SLICE_TYPE, MULTIPLANAR_TYPE, SHOW_RENDER }, image, labels] = await Promise.all([
    import('@niivue/niivue'),
    bytes(o.image),
    o.labels ? bytes(o.labels) : undefined,
  ])
  if (o.signal.aborted) throw new DOMException('left', 'AbortError')
  o.progress('Drawing')

  const nv = new Niivue({
    logLevel: 'error',
    loadingText: '',
    backColor: [0, 0, 0, 1],
    crosshairColor: [0.3, 0.5, 0.68, 1],
    crosshairWidth: 0.5,
    crosshairGap: 6,
    isRadiologicalConvention: true,
    sagittalNoseLeft: true,
    isCornerOrientationText: false,
    fontColor: [0.75, 0.79, 0.83, 1],
    fontSizeScaling: 0.35,
    fontMinPx: 12,
    isColorbar: false,
    isOrientCube: false,
    multiplanarShowRender: SHOW_RENDER.NEVER,
    multiplanarLayout: MULTIPLANAR_TYPE.AUTO,
    multiplanarPadPixels: 6,
    multiplanarEqualSize: false,
    sliceType: SLICE_TYPE.MULTIPLANAR,
    dragMode: DRAG_MODE.windowing,
    dragAndDropEnabled: false,
    isSliceMM: false,
    show3Dcrosshair: false,
    scrollRequiresFocus: false,
    // Ours are the keys of the page.
    viewModeHotKey: '',
    clipPlaneHotKey: '',
    cycleClipPlaneHotKey: '',
  })
  await nv.attachToCanvas(o.canvas, true)
  const scan = await NVImage.loadFromUrl({ url: 'image.nii.gz', name: 'image.nii.gz', buffer: image, colormap: 'gray' })
  nv.addVolume(scan)
  const auto: [number, number] = [scan.cal_min ?? 0, scan.cal_max ?? 1]

  const centres = new Map<number, [number, number, number]>()
  let map: InstanceType<typeof NVImage> | undefined
  let off: ReadonlySet<number> = new Set()
  const paint = (): void => {
    if (!map) return
    const all = [{ label: 0, colour: '#000000' }, ...o.structures].sort((a, b) => a.label - b.label)
    const part = (at: number): number[] => all.map((s) => parseInt(s.colour.slice(at, at + 2), 16))
    map.setColormapLabel({ R: part(1), G: part(3), B: part(5), A: all.map((s) => (s.label === 0 || off.has(s.label) ? 0 : 255)), I: all.map((s) => s.label) })
    nv.updateGLVolume()
  }
  if (labels) {
    map = await NVImage.loadFromUrl({ url: 'labels.nii.gz', name: 'labels.nii.gz', buffer: labels, opacity: 0.4 })
    for (const [label, at] of middles(map.img as ArrayLike<number>, map.hdr!.dims)) centres.set(label, at)
    nv.addVolume(map)
    paint()
  }
  let laid: InstanceType<typeof NVImage> | undefined
  let share = 0.4 // opacity of what lies over the picture
  const moved = (location: unknown): void => {
    const l = location as { mm: ArrayLike<number>; values: { value: number }[] }
    o.moved({ mm: [l.mm[0]!, l.mm[1]!, l.mm[2]!], label: l.values[1]?.value ?? 0, value: l.values[0]?.value ?? 0, map: laid && l.values[2]?.value })
  }
  nv.onLocationChange = moved
  nv.onIntensityChange = (v: { cal_min?: number; cal_max?: number }) => o.windowed(v.cal_min ?? auto[0], v.cal_max ?? auto[1])
  o.windowed(...auto)

  const redraw = (): void => {
    nv.drawScene()
  }
  const place = (frac: ArrayLike<number>): void => {
    const inside = (f: number): number => Math.max(0, Math.min(1, f))
    nv.scene.crosshairPos = [inside(frac[0]!), inside(frac[1]!), inside(frac[2]!)]
    redraw()
    nv.createOnLocationChange()
  }
  const v: Viewer = {
    goTo(label) {
      const at = centres.get(label)
      if (!at || !map) return false
      // By the affine: the viewer's own voxel order is not the file's.
      const mm = map.hdr!.affine.slice(0, 3).map((row) => row[0]! * at[0] + row[1]! * at[1] + row[2]! * at[2] + row[3]!)
      place(nv.mm2frac(mm as never, 0, true)) // true: of the world, not along the picture
      return true
    },
    goToStart() {
      place(start)
    },
    move(by) {
      const at = nv.frac2mm(nv.scene.crosshairPos)
      place(nv.mm2frac(by.map((d, axis) => at[axis]! + d) as never))
    },
    opacity(value) {
      share = value
      if (laid) nv.setOpacity(2, value)
      else if (map) nv.setOpacity(1, value)
    },
    async lay(path) {
      const next = path && (await NVImage.loadFromUrl({ url: 'map.nii.gz', name: 'map.nii.gz', buffer: await bytes(path), colormap: 'inferno', opacity: share }))
      if (o.signal.aborted) return undefined
      if (laid) nv.removeVolume(laid)
      laid = next || undefined
      if (laid) {
        // 0 is no value, and is let through.
        ;[laid.cal_min, laid.cal_max] = range(laid.img as ArrayLike<number>)
        nv.addVolume(laid)
      }
      if (map) nv.setOpacity(1, laid ? 0 : share)
      nv.updateGLVolume()
      nv.createOnLocationChange()
      return laid && [laid.cal_min!, laid.cal_max!]
    },
    hidden(labels) {
      off = labels
      paint()
    },
    outline(on) {
      nv.setAtlasOutline(on ? 1 : 0)
      redraw()
    },
    window(lo, hi) {
      scan.cal_min = lo
      scan.cal_max = Math.max(hi, lo + 1e-6)
      nv.updateGLVolume()
    },
    autoWindow: () => auto,
    leave() {
      nv.onLocationChange = () => {}
      nv.gl.getExtension('WEBGL_lose_context')?.loseContext() // browsers keep few of them
    },
  }
  v.goTo(17) || place(nv.mm2frac([0, 0, 0] as never, 0, true))
  const start = [...nv.scene.crosshairPos]
  return v
}

/** From the 2nd to the 98th percentile of what is not 0. */
function range(img: ArrayLike<number>): [number, number] {
  const values = Float32Array.from(Array.from(img).filter((v) => v !== 0)).sort()
  const at = (share: number): number => values[Math.floor(share * (values.length - 1))] ?? 0
  return [at(0.02), Math.max(at(0.98), at(0.02) + 1e-6)]
}

/** The voxel of each label that lies nearest to its centre of mass: that centre itself may lie outside of a bent structure. */
function middles(img: ArrayLike<number>, dims: ArrayLike<number>): Map<number, [number, number, number]> {
  const [nx, ny] = [dims[1]!, dims[2]!]
  const sums = new Map<number, { n: number; x: number; y: number; z: number; best: number; at: [number, number, number] }>()
  const each = (f: (s: { n: number; x: number; y: number; z: number; best: number; at: [number, number, number] }, x: number, y: number, z: number) => void): void => {
    for (let i = 0; i < img.length; i++) {
      const label = img[i]!
      if (label === 0) continue
      let s = sums.get(label)
      if (!s) sums.set(label, (s = { n: 0, x: 0, y: 0, z: 0, best: Infinity, at: [0, 0, 0] }))
      const z = Math.floor(i / (nx * ny))
      const y = Math.floor((i - z * nx * ny) / nx)
      f(s, i - z * nx * ny - y * nx, y, z)
    }
  }
  each((s, x, y, z) => {
    s.n++
    s.x += x
    s.y += y
    s.z += z
  })
  each((s, x, y, z) => {
    const d = (x - s.x / s.n) ** 2 + (y - s.y / s.n) ** 2 + (z - s.z / s.n) ** 2
    if (d < s.best) {
      s.best = d
      s.at = [x, y, z]
    }
  })
  return new Map([...sums].map(([label, s]) => [label, s.at]))
}
