// Package memory lets work begin when what it is estimated to take is free, so
// that a process does not grow until it is killed.
package memory

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
)

// ErrNever says that more is asked for than there is in all.
var ErrNever = errors.New("memory: more than there is in all")

// Gate hands out a number of bytes. Who waits is served in order, so that
// large work is not overtaken for ever by small work. A nil Gate lets
// everything in.
type Gate struct {
	size int64
	used atomic.Int64
	free *semaphore.Weighted
}

// NewGate hands out size bytes.
func NewGate(size int64) *Gate {
	return &Gate{size: size, free: semaphore.NewWeighted(size)}
}

// Size in bytes; 0 for a nil Gate.
func (g *Gate) Size() int64 {
	if g == nil {
		return 0
	}
	return g.size
}

// Used bytes.
func (g *Gate) Used() int64 {
	if g == nil {
		return 0
	}
	return g.used.Load()
}

// Enter waits until n bytes are free and takes them until leave is called.
// Errors: ErrNever, and ctx's.
func (g *Gate) Enter(ctx context.Context, n int64) (leave func(), err error) {
	if g == nil {
		return func() {}, nil
	}
	if n > g.size {
		return nil, ErrNever
	}
	if err := g.free.Acquire(ctx, n); err != nil {
		return nil, err
	}
	g.used.Add(n)
	return func() {
		g.used.Add(-n)
		g.free.Release(n)
	}, nil
}

// Machine is the memory of the machine, or of the container if that has less;
// 0 where neither can be read.
func Machine() int64 {
	least := int64(0)
	for _, file := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		if b, err := os.ReadFile(file); err == nil {
			least = smaller(least, number(b))
		}
	}
	if b, err := os.ReadFile("/proc/meminfo"); err == nil {
		least = smaller(least, total(b))
	}
	return least
}

// smaller of two sizes of which 0 means unknown.
func smaller(a, b int64) int64 {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}

// number of bytes; 0 for "max".
func number(b []byte) int64 {
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// total memory in the words of /proc/meminfo: "MemTotal: 1024 kB".
func total(meminfo []byte) int64 {
	for line := range bytes.Lines(meminfo) {
		rest, ok := bytes.CutPrefix(line, []byte("MemTotal:"))
		if ok {
			return 1024 * number(bytes.TrimSuffix(bytes.TrimSpace(rest), []byte("kB")))
		}
	}
	return 0
}
