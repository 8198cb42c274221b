// Package version names the running build.
package version

import (
	"runtime/debug"
	"sync"
)

// Release is set at build time with -ldflags "-X".
var Release = "0.1.0-dev"

// String is the release and, where the build knows it, the commit.
var String = sync.OnceValue(func() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return Release
	}
	commit, dirty := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && len(s.Value) >= 12:
			commit = "+" + s.Value[:12]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = ".dirty"
		}
	}
	return Release + commit + dirty
})
