// Package web holds the clinicians' pages: TypeScript under src, built into
// dist by `make web` and not committed.
package web

import (
	"embed"
	"io/fs"
)

// Everything, so that the folder's one committed file is enough to compile.
//
//go:embed all:dist
var dist embed.FS

// Pages returns the built pages, or nil when this program was compiled without
// them.
func Pages() fs.FS {
	files, err := fs.Sub(dist, "dist")
	if err != nil {
		panic(err) // the folder is embedded
	}
	if _, err := fs.Stat(files, "index.html"); err != nil {
		return nil
	}
	return files
}
