package load

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"phasegate/fixtures/upstream/wire"
	"phasegate/harness/scenario"
	"phasegate/harness/timeline"

	"github.com/valyala/fasthttp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(serverMark) != "" {
		serveQuickly()
		return
	}
	goleak.VerifyTestMain(m)
}

func oneArm(t testing.TB, raw string) Arm {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return Arm{Name: "new", URL: u, Share: 1, Connections: 16}
}

// memory keeps what a run reports.
type memory struct {
	mu       sync.Mutex
	offered  []time.Duration
	outcomes []timeline.Outcome
	cut      []time.Duration // when they had been sent
	arms     []int
	opened   int    // connections
	shook    [2]int // handshakes that failed, and that didn't
}

func (m *memory) Connection(int, time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.opened++
}

func (m *memory) Handshake(_ int, _ time.Duration, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if ok {
		m.shook[1]++
	} else {
		m.shook[0]++
	}
}

func (m *memory) Cut(_ int, _, sent time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cut = append(m.cut, sent)
}

func (m *memory) Offer(_ int, due time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.offered = append(m.offered, due)
}

func (m *memory) Record(arm int, o timeline.Outcome) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.outcomes = append(m.outcomes, o)
	m.arms = append(m.arms, arm)
}

// byDue returns the outcomes in the order of their due times.
func (m *memory) byDue() []timeline.Outcome {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.SortedFunc(slices.Values(m.outcomes), func(a, b timeline.Outcome) int { return int(a.Due - b.Due) })
}

func (m *memory) classes() (counts [timeline.Classes]int) {
	for _, o := range m.byDue() {
		counts[o.Class]++
	}
	return counts
}

// origin is a small upstream whose answers describe themselves.
type origin struct {
	mu       sync.Mutex
	versions map[string]uint64
}

func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	if o.versions == nil {
		o.versions = map[string]uint64{}
	}
	if Writes(r.Method) {
		o.versions[r.RequestURI]++
	}
	version := o.versions[r.RequestURI] + 1
	o.mu.Unlock()
	body := []byte("the body of " + r.RequestURI)
	d := wire.Description{Key: r.RequestURI, Version: version, Birth: time.Now(), Status: 200, Fresh: time.Hour}
	w.Header().Set(wire.Header, d.Seal(body))
	_, _ = w.Write(body)
}

func serve(t testing.TB, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// smallLoad is 200/s of verified reads.
func smallLoad() scenario.Load {
	return scenario.Load{
		Rate: flat(200), Path: "/items/{key}", Verify: true, Timeout: 5 * time.Second,
		Keys: scenario.Keys{Distribution: scenario.Uniform, Count: 50},
	}
}

func generator(t testing.TB, config Config) *Generator {
	t.Helper()
	g, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

// noted is what is looked at of a header.
func noted(h *fasthttp.ResponseHeader) *fields {
	f := new(fields)
	for name, value := range h.All() {
		f.note(string(name), value)
	}
	return f
}
