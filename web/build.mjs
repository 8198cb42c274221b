// Builds the pages into dist: one script and one style sheet, and the viewer
// as a script of its own that is loaded with the first picture.
import { build } from 'esbuild'
import { mkdir, readdir, rm, writeFile } from 'node:fs/promises'

await mkdir('dist', { recursive: true })
for (const old of await readdir('dist')) {
  if (old !== '.built-by-make') await rm(`dist/${old}`)
}

// The viewer can read Zarr volumes; we have none, and its decoders are larger
// than the rest of it.
const withoutZarr = {
  name: 'without-zarr',
  setup(b) {
    b.onResolve({ filter: /^(zarrita|numcodecs)(\/|$)/ }, (a) => ({ path: a.path, namespace: 'nothing' }))
    b.onLoad({ filter: /.*/, namespace: 'nothing' }, () => ({ contents: 'module.exports = {}', loader: 'js' }))
  },
}

const { metafile } = await build({
  entryPoints: ['src/main.ts', 'src/style.css'],
  outdir: 'dist',
  entryNames: '[name]-[hash]',
  chunkNames: '[name]-[hash]',
  bundle: true,
  splitting: true,
  format: 'esm',
  target: 'es2022',
  minify: true,
  legalComments: 'eof',
  metafile: true,
  plugins: [withoutZarr],
  logLevel: 'warning',
})

const file = (entry) => {
  const [path] = Object.entries(metafile.outputs).find(([, o]) => o.entryPoint === entry)
  return path.replace('dist/', '')
}
await writeFile(
  'dist/index.html',
  `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="dark">
<title>NeuroScreen</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/assets/${file('src/style.css')}">
<script type="module" src="/assets/${file('src/main.ts')}"></script>
<body>
<div id="app"></div>
<noscript>These pages need JavaScript.</noscript>
</html>
`,
)
