package memory

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

func TestGate(t *testing.T) {
	t.Parallel()
	t.Run("what can never fit is refused at once", func(t *testing.T) {
		g := NewGate(10)
		if _, err := g.Enter(t.Context(), 11); !errors.Is(err, ErrNever) {
			t.Errorf("%v", err)
		}
	})
	t.Run("what fits waits until there is room", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g := NewGate(10)
			leave, err := g.Enter(t.Context(), 6)
			if err != nil || g.Used() != 6 {
				t.Fatal(err, g.Used())
			}
			entered := false
			go func() {
				leave, err := g.Enter(t.Context(), 5)
				if err != nil {
					t.Error(err)
					return
				}
				entered = true
				leave()
			}()
			synctest.Wait()
			if entered {
				t.Error("11 of 10 bytes are taken")
			}
			leave()
			synctest.Wait()
			if !entered || g.Used() != 0 {
				t.Errorf("entered %v, %d bytes used", entered, g.Used())
			}
		})
	})
	t.Run("small work does not overtake large work that waits", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g := NewGate(10)
			leave, err := g.Enter(t.Context(), 6)
			if err != nil {
				t.Fatal(err)
			}
			var order []int64
			for _, n := range []int64{9, 2} {
				go func() {
					leave, err := g.Enter(t.Context(), n)
					if err != nil {
						t.Error(err)
						return
					}
					order = append(order, n)
					leave()
				}()
				synctest.Wait()
			}
			leave()
			synctest.Wait()
			if len(order) != 2 || order[0] != 9 {
				t.Errorf("entered in the order %v", order)
			}
		})
	})
	t.Run("who gives up takes nothing", func(t *testing.T) {
		g := NewGate(10)
		leave, err := g.Enter(t.Context(), 10)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := g.Enter(ctx, 1); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		leave()
		if _, err := g.Enter(t.Context(), 10); err != nil {
			t.Errorf("%v", err)
		}
	})
	t.Run("none lets everything in", func(t *testing.T) {
		var g *Gate
		leave, err := g.Enter(t.Context(), 1<<60)
		if err != nil {
			t.Fatal(err)
		}
		leave()
	})
}

func TestMachine(t *testing.T) {
	t.Parallel()
	if got := total([]byte("MemTotal:       24683520 kB\nMemFree:  1 kB\n")); got != 24683520*1024 {
		t.Errorf("%d bytes", got)
	}
	if got := number([]byte("max\n")); got != 0 {
		t.Errorf("no limit is %d", got)
	}
	if got := smaller(smaller(0, 5), 3); got != 3 {
		t.Errorf("the smaller of 5 and 3 is %d", got)
	}
	if got := smaller(smaller(0, 5), 0); got != 5 {
		t.Errorf("an unknown limit counts: %d", got)
	}
	if Machine() < 1<<28 {
		t.Errorf("this machine has %d bytes", Machine())
	}
}
