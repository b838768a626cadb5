package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"phasegate/fixtures/upstream/wire"
	"phasegate/harness/scenario"
	"phasegate/harness/timeline"
)

// Prewarm asks one arm for its most popular targets, in order, each once, over
// at most p.Concurrency connections of its own, and checks the answers as Run
// does. Nothing goes to the sink. progress, which may be nil, is told after
// every answer. A target without a usable, right answer is counted in the
// report by why; once more than a tenth of them failed, Prewarm gives up with the
// first failure's reason.
func (g *Generator) Prewarm(ctx context.Context, arm int, p scenario.Prewarm, progress func(done, total int)) error {
	ctx, leave, err := g.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	a := g.arms[arm]
	top := g.source.popular(p.Top)
	var (
		mu           sync.Mutex
		next         int
		done, failed int
		first        error
		known        = make([]bool, len(top))
	)
	take := func() (int, bool) {
		mu.Lock()
		defer mu.Unlock()
		next++
		return next - 1, next <= len(top)
	}
	finish := func(i int, x *exchange) {
		mu.Lock()
		defer mu.Unlock()
		if ctx.Err() != nil {
			return
		}
		done++
		if known[i] = usable(x); !known[i] {
			failed++
			a.failPrewarm(x)
			if first == nil {
				first = errors.New(sentence(a.Name, job{request: top[i], due: x.Due}, x.why, g.source.appendTarget(nil, top[i].target)))
			}
			if 10*failed > len(top) {
				cancel()
			}
		}
		if progress != nil {
			progress(done, len(top))
		}
	}

	var clients sync.WaitGroup
	for range min(max(p.Concurrency, 1), len(top)) {
		clients.Go(func() {
			c := g.newClient(ctx, a, g.source)
			defer c.close()
			for {
				i, ok := take()
				if !ok || ctx.Err() != nil {
					return
				}
				x := c.ask(ctx, top[i])
				finish(i, &x)
			}
		})
	}
	clients.Wait()

	a.prewarmed += done
	for i, ok := range known {
		if ok {
			a.seen.add(top[i].target)
		}
	}
	if 10*failed > len(top) {
		return fmt.Errorf("%d of the first %d answers failed, of %d targets: %w", failed, done, len(top), first)
	}
	return ctx.Err()
}

// Recognize asks an arm for the mock upstream's probe path and reports whether
// the answer describes itself, so whether what answers stands before our
// upstream. From an arm that doesn't, no proof is asked from then on: its
// answers are judged by their status alone.
func (g *Generator) Recognize(ctx context.Context, arm int) (bool, error) {
	ctx, leave, err := g.enter(ctx)
	if err != nil {
		return false, err
	}
	defer leave()
	a := g.arms[arm]
	probe := literal{wire.ProbePath}
	c := g.newClient(ctx, a, probe)
	defer c.close()
	x := c.ask(ctx, probe.at(0))
	a.verify = a.verify && x.Proven
	return x.Proven, ctx.Err()
}

// usable reports whether an answer may stand for a cache's content. One that
// isn't proven may: whether that is a fault is for the run to say.
func usable(x *exchange) bool { return x.Class == timeline.OK || x.Class == timeline.Unproven }

// Turn is one request of a closed loop.
type Turn struct {
	Service time.Duration // from the send to the last body byte
	Whole   time.Duration // until the client was ready for the next one
}

// Sequential is one client in a closed loop on one connection: n requests, each
// sent when the answer before it has ended. With targets it asks for those in turn,
// after asking for each once, untimed, so that a cache holds them; without, it
// follows the schedule's own reads from the first position on. Nothing goes to
// the sink. At the first request without a right answer it gives up and returns the turns until
// then.
func (g *Generator) Sequential(ctx context.Context, arm, n int, targets ...string) ([]Turn, error) {
	ctx, leave, err := g.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	var from source = literal(targets)
	if len(targets) == 0 {
		from = g.source
	}
	for _, t := range targets {
		if err := checkPath(t); err != nil {
			return nil, fmt.Errorf("target %w", err)
		}
	}
	c := g.newClient(ctx, g.arms[arm], from)
	defer c.close()

	turns := make([]Turn, 0, max(n, 0))
	warm := len(targets)
	position := uint64(0)
	for i := 0; i < warm+n; i++ {
		r := from.at(position)
		for writes := 0; !r.cacheable(); writes++ {
			if writes == maxWrites {
				return turns, fmt.Errorf("no read among %d requests of the schedule", writes)
			}
			position++
			r = from.at(position)
		}
		position++
		begun := time.Now()
		x := c.ask(ctx, r)
		if ctx.Err() != nil {
			return turns, ctx.Err()
		}
		if x.Class != timeline.OK {
			return turns, fmt.Errorf("request %d of %d: %s %s: %w", i+1, warm+n, r.method, from.appendTarget(nil, r.target), x.why)
		}
		if i >= warm {
			turns = append(turns, Turn{Service: x.Service, Whole: time.Since(begun)})
		}
	}
	return turns, nil
}

// maxWrites bounds how far Sequential looks for a read.
const maxWrites = 1 << 20

// client is one connection in a closed loop.
type client struct {
	performer
	base time.Time
	stop func() bool
}

// performer is a connection on which one request is under way at a time.
type performer interface {
	perform(ctx context.Context, j job, sent bool) exchange
	hangUp()
}

func (g *Generator) newClient(ctx context.Context, a *arm, from source) *client {
	s := side{g: g, arm: a, engine: newGoroutines(), source: from, base: time.Now(), open: &sockets{}, sink: discard{}}
	c := &client{base: s.base, stop: context.AfterFunc(ctx, s.open.cut)}
	c.performer = g.newPerformer(s, g.protocols[0])
	return c
}

func (g *Generator) newPerformer(s side, p scenario.Protocol) performer {
	if p == scenario.HTTP1 {
		return &conn{side: s}
	}
	return &http2Client{http2Dialer: newHTTP2Dialer(s)}
}

// ask sends one request, due now, and waits for its outcome.
func (c *client) ask(ctx context.Context, r request) exchange {
	return c.perform(ctx, job{request: r, due: time.Since(c.base)}, false)
}

func (c *client) close() {
	c.stop()
	c.hangUp()
}

// literal is the source of given targets, in turn.
type literal []string

func (l literal) at(i uint64) request {
	return request{method: "GET", target: uint32(i % uint64(len(l)))}
}

func (l literal) appendTarget(dst []byte, target uint32) []byte { return append(dst, l[target]...) }
func (l literal) targets() int                                  { return len(l) }

func (l literal) popular(n int) []request {
	top := make([]request, 0, len(l))
	for i := range min(n, len(l)) {
		top = append(top, l.at(uint64(i)))
	}
	return top
}
