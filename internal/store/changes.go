package store

import (
	"sync"

	"github.com/google/uuid"
)

// changes tells whoever waits in this process that a scan's row has changed.
// What other processes change, nobody is told of.
type changes struct {
	mu      sync.Mutex
	waiting map[uuid.UUID]map[chan struct{}]struct{} // by scan
}

// Changes gets a value when a transaction of this store has changed the state
// of the scan, one for any number of them. forget ends that.
func (s *Store) Changes(scanID uuid.UUID) (changed <-chan struct{}, forget func()) {
	c := &s.changes
	woken := make(chan struct{}, 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting[scanID] == nil {
		if c.waiting == nil {
			c.waiting = map[uuid.UUID]map[chan struct{}]struct{}{}
		}
		c.waiting[scanID] = map[chan struct{}]struct{}{}
	}
	c.waiting[scanID][woken] = struct{}{}
	return woken, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.waiting[scanID], woken)
		if len(c.waiting[scanID]) == 0 {
			delete(c.waiting, scanID)
		}
	}
}

func (c *changes) tell(scans []uuid.UUID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range scans {
		for woken := range c.waiting[id] {
			select {
			case woken <- struct{}{}:
			default: // not yet looked since the last
			}
		}
	}
}
