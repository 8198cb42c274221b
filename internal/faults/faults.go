package faults

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"

	"neuroscreen"
	"neuroscreen/internal/blob"
	"neuroscreen/internal/client"
)

// fault is one way to break things.
type fault struct {
	name, what string
	felt       bool // goes on until it broke some request
	head       bool // needs a scan that takes seconds
	oneByOne   bool // scans are handed over one after the other
	post       func(r *rig, n int) *post
	count      int // of scans, when it is not that of the options
	share      int // only one in so many of the options'
	// hurt goes on until ctx ends, and heals; it calls hit each time.
	hurt func(ctx context.Context, r *rig, hit func()) error
	// after is called with each accepted scan.
	after func(ctx context.Context, r *rig, p *post) error
}

var faults = []fault{
	{name: "undisturbed", what: "no fault; every fourth scan is posted twice at once, every fifth is first cut in the middle", post: small},
	{name: "same-at-once", what: "each scan is posted six times at once", post: sixTimes},
	{name: "server-killed", felt: true, what: "kill -9 of the server", post: small, hurt: every(800*time.Millisecond, func(ctx context.Context, r *rig, n int) error {
		r.kill("server")
		return nil
	})},
	{name: "worker-killed", what: "kill -9 of one of two workers", post: small, hurt: every(1500*time.Millisecond, func(ctx context.Context, r *rig, n int) error {
		r.kill(fmt.Sprintf("worker%d", 1+n%2))
		return nil
	})},
	{name: "postgres-killed", what: "kill -9 of Postgres; up again at once", post: small, hurt: every(4*time.Second, func(ctx context.Context, r *rig, n int) error {
		return r.bouncePostgres(syscall.SIGKILL, 0)
	})},
	{name: "postgres-restarted", felt: true, what: "Postgres stopped in order and away for 3 s", post: small, hurt: every(6*time.Second, func(ctx context.Context, r *rig, n int) error {
		return r.bouncePostgres(syscall.SIGINT, 3*time.Second)
	})},
	{name: "database-slow", what: "50 to 150 ms more for each answer of Postgres", post: small, share: 4,
		hurt: throughout(database, `{"name":"slow","type":"latency","stream":"downstream","attributes":{"latency":100,"jitter":50}}`)},
	{name: "database-reset", felt: true, what: "connections to Postgres reset", post: small,
		hurt: bursts(1500*time.Millisecond, 300*time.Millisecond, database, `{"name":"reset","type":"reset_peer","stream":"downstream","attributes":{"timeout":0}}`)},
	{name: "database-half-open", what: "connections to Postgres stay open and carry nothing for 4 s", post: small,
		hurt: bursts(3*time.Second, 4*time.Second, database, `{"name":"dead","type":"timeout","stream":"upstream","attributes":{"timeout":0}}`)},
	{name: "uploads-slow", what: "uploads at 100 kB/s", post: small, share: 4,
		hurt: throughout(web, `{"name":"slow","type":"bandwidth","stream":"upstream","attributes":{"rate":100}}`)},
	{name: "uploads-cut", felt: true, what: "half of the connections end after 60 kB of an upload", post: small,
		hurt: throughout(web, `{"name":"cut","type":"limit_data","stream":"upstream","toxicity":0.5,"attributes":{"bytes":60000}}`)},
	{name: "uploads-resumed", felt: true, what: "uploads in pieces, of which half end after 60 kB, while the server is killed; clients go on where it stands", post: inPieces, hurt: resumed},
	{name: "answers-lost", felt: true, what: "half of the connections are reset when the answer comes", post: small,
		hurt: throughout(web, `{"name":"lost","type":"reset_peer","stream":"downstream","toxicity":0.5,"attributes":{"timeout":0}}`)},
	{name: "disk-full", felt: true, what: "no room for scans, for 2 s at a time", post: small, hurt: every(2*time.Second, func(ctx context.Context, r *rig, n int) error {
		return r.full(ctx, "blobs", 2*time.Second)
	})},
	{name: "database-disk-full", felt: true, what: "no room for Postgres' tables and log, for 2 s at a time", post: small, hurt: every(4*time.Second, func(ctx context.Context, r *rig, n int) error {
		return r.full(ctx, "database", 2*time.Second)
	})},
	{name: "result-disk-full", what: "no room when the result of a real analysis is to be stored", head: true, oneByOne: true,
		post: head(neuroscreen.Scored, ""), count: 1, after: noRoomForResult},
	{name: "stages", what: "kill -9 of server, workers and Postgres, each as a real analysis is received, checked, segmented and measured", head: true, oneByOne: true,
		post: head(neuroscreen.Scored, ""), count: len(targets) * len(stages),
		after: killAtStage()},
	{name: "postgres-away", what: "Postgres stopped in order and away for 12 s, longer than leases, while a real analysis is under way, which is not done again", head: true, oneByOne: true,
		post: head(neuroscreen.Scored, ""), count: 1, after: longAway},
	{name: "out-of-memory", what: "both workers killed whenever they begin with one scan", head: true, oneByOne: true,
		post: head(neuroscreen.Failed, "worker-lost"), count: 1, after: killAlways},
}

// every does something until ctx ends.
func every(interval time.Duration, do func(ctx context.Context, r *rig, n int) error) func(context.Context, *rig, func()) error {
	return func(ctx context.Context, r *rig, hit func()) error {
		wait := 300 * time.Millisecond
		for n := 0; sleep(ctx, wait) == nil; n++ {
			if err := do(ctx, r, n); err != nil {
				return err
			}
			hit()
			wait = interval
		}
		return nil
	}
}

func database(r *rig) *toxiproxy.Proxy { return r.database }
func web(r *rig) *toxiproxy.Proxy      { return r.web }

// throughout keeps one toxic in place all the time; each second counts.
func throughout(p func(*rig) *toxiproxy.Proxy, json string) func(context.Context, *rig, func()) error {
	return func(ctx context.Context, r *rig, hit func()) error {
		heal, err := toxic(p(r), json)
		if err != nil {
			return err
		}
		defer heal()
		for ctx.Err() == nil {
			hit()
			sleep(ctx, time.Second)
		}
		return nil
	}
}

// bursts put a toxic in place for a while, again and again.
func bursts(pause, long time.Duration, p func(*rig) *toxiproxy.Proxy, json string) func(context.Context, *rig, func()) error {
	return every(pause, func(ctx context.Context, r *rig, n int) error {
		heal, err := toxic(p(r), json)
		if err != nil {
			return err
		}
		defer heal()
		sleep(ctx, long)
		return nil
	})
}

// resumed cuts connections all the time and kills the server now and then.
func resumed(ctx context.Context, r *rig, hit func()) error {
	heal, err := toxic(r.web, `{"name":"cut","type":"limit_data","stream":"upstream","toxicity":0.5,"attributes":{"bytes":60000}}`)
	if err != nil {
		return err
	}
	defer heal()
	return every(1500*time.Millisecond, func(ctx context.Context, r *rig, n int) error {
		r.kill("server")
		return nil
	})(ctx, r, hit)
}

// bouncePostgres ends with Postgres up, also when the run is being stopped.
func (r *rig) bouncePostgres(s syscall.Signal, away time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := r.endPostgres(ctx, s); err != nil {
		return err
	}
	sleep(ctx, away)
	return r.startPostgres(ctx)
}

// full leaves a disk without room for a while. Postgres may not survive that
// and is started again.
func (r *rig) full(ctx context.Context, part string, long time.Duration) error {
	free, err := r.fill(part)
	if err != nil {
		return err
	}
	sleep(ctx, long)
	if err := free(); err != nil {
		return err
	}
	if part != "database" {
		return nil
	}
	select {
	case <-r.cluster.Exited():
		return r.bouncePostgres(syscall.SIGINT, 0)
	case <-time.After(500 * time.Millisecond):
		return nil
	}
}

var (
	targets = []string{"server", "workers", "postgres"}
	stages  = []neuroscreen.State{neuroscreen.Received, neuroscreen.Checked, neuroscreen.Segmented, neuroscreen.Measured}
)

// killAtStage goes through all pairs, one with each scan.
func killAtStage() func(context.Context, *rig, *post) error {
	var next atomic.Int32
	return func(ctx context.Context, r *rig, p *post) error {
		n := int(next.Add(1)) - 1
		target, stage := targets[n%len(targets)], stages[n/len(targets)%len(stages)]
		return r.follow(ctx, p, func(state neuroscreen.State) (bool, error) {
			if state != stage {
				return false, nil
			}
			return true, r.killTarget(target)
		})
	}
}

func (r *rig) killTarget(target string) error {
	r.hits.Add(1)
	switch target {
	case "workers":
		r.kill("worker1")
		r.kill("worker2")
		return nil
	case "postgres":
		return r.bouncePostgres(syscall.SIGKILL, 0)
	}
	r.kill(target)
	return nil
}

// follow tells do each state of the scan until it says that it is done, and
// waits for the scan's end.
func (r *rig) follow(ctx context.Context, p *post, do func(neuroscreen.State) (done bool, err error)) error {
	var failed error
	done := false
	api := *r.api
	_, err := api.Wait(ctx, p.id, func(e client.ScanEvent) {
		if !done && failed == nil {
			done, failed = do(e.State)
		}
	})
	for err != nil && ctx.Err() == nil { // the server may be away for longer than a client waits
		_, err = api.Wait(ctx, p.id, nil)
	}
	return errors.Join(failed, err)
}

// longAway takes Postgres away for longer than a worker's lease lasts, once the
// worker has begun.
func longAway(ctx context.Context, r *rig, p *post) error {
	begun := 0
	return r.follow(ctx, p, func(state neuroscreen.State) (bool, error) {
		if state != neuroscreen.Checked {
			return false, nil
		}
		if begun++; begun > 1 {
			return true, errors.New("a finished analysis was done again")
		}
		r.hits.Add(1)
		return false, r.bouncePostgres(syscall.SIGINT, 12*time.Second)
	})
}

func killAlways(ctx context.Context, r *rig, p *post) error {
	return r.follow(ctx, p, func(state neuroscreen.State) (bool, error) {
		if state == neuroscreen.Checked {
			return false, r.killTarget("workers")
		}
		return false, nil
	})
}

func noRoomForResult(ctx context.Context, r *rig, p *post) error {
	var free func() error
	waited := false
	err := r.follow(ctx, p, func(state neuroscreen.State) (done bool, err error) {
		switch {
		case state == neuroscreen.Checked && free == nil:
			free, err = r.fill("blobs")
		case state == neuroscreen.Received && free != nil: // given back to wait
			waited = true
			r.hits.Add(1)
			return true, free()
		}
		return false, err
	})
	switch {
	case errors.Is(err, errNoSmallDisk):
		return nil
	case free != nil && !waited:
		return errors.Join(err, free(), errors.New("the result found room"))
	}
	return err
}

func countFiles(dir string) (n int, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && d.Name() != blob.OwnerFile {
			n++
		}
		return err
	})
	return n, err
}
