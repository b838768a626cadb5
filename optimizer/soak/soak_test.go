package soak

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"phasegate/optimizer"
	"phasegate/optimizer/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// What may be beyond the first sample, taken when all is warm, and what the process may
// take: it holds the clients and the upstream too, and the race detector's shadow of
// all that is touched, the cache included.
const (
	budgetMB        = 60
	readTimeout     = 500 * time.Millisecond
	connections     = 16                 // to the upstream; kept while idle
	slackGoroutines = 3*connections + 10 // two in the client and one in the server for each kept connection
	slackFiles      = 2*connections + 10
	slackHeap       = 6e6 // bytes after a collection
	slackRSS        = 120e6
	slackRSSRace    = 500e6
)

type soak struct {
	*testing.T
	world
	o         *optimizer.Optimizer
	transport *http.Transport
	client    *http.Client
	admin     string
	resting   sync.RWMutex // held for reading by whoever does something
	done      chan struct{}
	working   sync.WaitGroup

	requests, hits, failed, cut, late, left, purges, wrong atomic.Int64
}

func TestSoak(t *testing.T) {
	duration, every, warm := 5*time.Second, time.Second, 1500*time.Millisecond
	if text := os.Getenv("PHASEGATE_SOAK"); text != "" {
		var err error
		if duration, err = time.ParseDuration(text); err != nil || duration < time.Minute {
			t.Fatalf("PHASEGATE_SOAK: %q, must be a duration of 1m or more", text)
		}
		every, warm = time.Minute, 30*time.Second
	}
	s := &soak{T: t, done: make(chan struct{})}
	api := httptest.NewServer(&s.world)
	defer api.Close()
	cfg := optimizer.Config{Listen: "127.0.0.1:0"}
	cfg.Upstream = upstream.Config{URL: api.URL, Timeout: 300 * time.Millisecond, MaxConnectionsPerHost: connections, ConnectionPoolSize: connections}
	cfg.Breaker = upstream.Breaker{MinRequests: 20, Window: time.Second, OpenFor: 300 * time.Millisecond}
	cfg.Cache.MaxMemoryMB = budgetMB
	cfg.Cache.MaxObjectShare = 0.04 // the largest objects are streamed
	cfg.Guard.ReadTimeout, cfg.Guard.WriteTimeout = readTimeout, 500*time.Millisecond
	var err error
	if s.o, err = optimizer.New(cfg); err != nil {
		t.Fatal(err)
	}
	if err := s.o.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.transport = &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 20}
	s.client = &http.Client{Transport: s.transport, Timeout: 20 * time.Second}
	s.admin = "http://" + s.o.AdminAddr().String()

	for _, kind := range []struct {
		clients int
		pause   time.Duration
		work    func()
	}{
		{8, 4 * time.Millisecond, s.read}, {1, 40 * time.Millisecond, s.purge}, {1, 30 * time.Millisecond, s.write},
		{3, 20 * time.Millisecond, s.hangUp}, {4, 50 * time.Millisecond, s.dawdle},
	} {
		for range kind.clients {
			s.working.Go(func() { s.repeat(kind.pause, kind.work) })
		}
	}
	s.working.Go(s.fail)

	begun := time.Now()
	time.Sleep(warm)
	first := s.sample(begun, nil)
	for time.Since(begun) < duration {
		time.Sleep(min(every, duration-time.Since(begun)))
		s.sample(begun, &first)
	}
	close(s.done)
	s.working.Wait()
	s.faults.Store(0)
	s.recovers()
	s.transport.CloseIdleConnections()
	if err := s.o.Stop(t.Context()); err != nil {
		t.Errorf("stop: %v", err)
	}
	if s.hits.Load() == 0 || s.purges.Load() == 0 || s.left.Load() == 0 || s.planted.Load() == 0 {
		t.Error("some of the load didn't take place")
	}
}

// repeat works until the end, and rests while the state is looked at.
func (s *soak) repeat(pause time.Duration, work func()) {
	for {
		select {
		case <-s.done:
			return
		case <-time.After(time.Duration((0.5 + rand.Float64()) * float64(pause))):
		}
		s.resting.RLock()
		work()
		s.resting.RUnlock()
	}
}

// fail has the upstream fail a little always, and nearly always for a moment now and
// then, so that the breaker opens.
func (s *soak) fail() {
	for n := 0; ; n++ {
		share := int64(30)
		if n%8 == 7 {
			share = 800
		}
		s.faults.Store(share)
		select {
		case <-s.done:
			return
		case <-time.After(400 * time.Millisecond):
		}
	}
}

func (s *soak) fault(format string, args ...any) {
	if s.wrong.Add(1) <= 20 {
		s.Errorf(format, args...)
	}
}

// pick is an object, most often one of a few.
func pick() int { r := rand.Float64(); return int(r * r * objects) }

func (s *soak) request(method string, i int, content io.Reader) *http.Request {
	req, err := http.NewRequest(method, fmt.Sprintf("http://%s/o/%d", s.o.Addr(), i), content)
	if err != nil {
		panic(err)
	}
	return req
}

// read asks for an object, a part of one, its head, or whether it has changed.
func (s *soak) read() {
	i := pick()
	least := s.floor[i].Load()
	req := s.request(http.MethodGet, i, nil)
	first, kind := 0, rand.IntN(10)
	switch kind {
	case 0:
		req.Header.Set("If-None-Match", etag(i, s.version[i].Load()))
	case 1:
		first = rand.IntN(size(i))
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", first, first+rand.IntN(5000)))
	case 2:
		req.Method = http.MethodHead
	}
	s.requests.Add(1)
	resp, err := s.client.Do(req)
	if err != nil {
		s.fault("object %d: no answer: %v", i, err)
		return
	}
	content, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if strings.HasPrefix(resp.Header.Get("Cache-Status"), "optimizer; hit") {
		s.hits.Add(1)
	}
	switch {
	case resp.StatusCode >= 500:
		s.failed.Add(1)
		if resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Etag") == "" && resp.Header.Get("Retry-After") == "" {
			s.fault("object %d: 503 without Retry-After, %v", i, resp.Header)
		}
	case err != nil: // the upstream stopped mid-body, and the answer says so
		s.cut.Add(1)
	case resp.StatusCode == http.StatusNotModified && kind == 0, resp.StatusCode == http.StatusOK && kind == 2:
	case resp.StatusCode == http.StatusPartialContent && kind == 1:
		err = check(i, least, content, first, false)
	case resp.StatusCode == http.StatusOK:
		err = check(i, least, content, 0, true)
	default:
		s.fault("object %d: status %d", i, resp.StatusCode)
	}
	if err != nil && resp.StatusCode < 500 && !errors.Is(err, io.ErrUnexpectedEOF) {
		s.fault("%s %v, %s: %v", req.Method, req.Header, resp.Header.Get("Cache-Status"), err)
	}
}

// purge makes a new version, and has the old ones forgotten.
func (s *soak) purge() {
	i := pick()
	version := s.version[i].Add(1)
	resp, err := s.client.Post(fmt.Sprintf("%s/invalidate?key=/o/%d", s.admin, i), "", nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		s.fault("purge: %v, %v", resp, err)
		return
	}
	resp.Body.Close()
	s.floor[i].Store(version)
	s.purges.Add(1)
}

// write sends a body up, which has the object forgotten too.
func (s *soak) write() {
	n := rand.IntN(200_000) + 1
	begun := time.Now()
	resp, err := s.client.Do(s.request(http.MethodPost, pick(), strings.NewReader(strings.Repeat("x", n))))
	if err != nil {
		s.fault("POST of %d bytes: %v", n, err)
		return
	}
	got, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode == http.StatusRequestTimeout && time.Since(begun) >= readTimeout {
		s.late.Add(1) // the machine was busy, or the line for a connection long
		return
	}
	if resp.StatusCode < 500 && (err != nil || string(got) != fmt.Sprint(n)) {
		s.fault("POST of %d bytes: %d %q %v", n, resp.StatusCode, got, err)
	}
}

func (s *soak) dial() *net.TCPConn {
	conn, err := net.Dial("tcp", s.o.Addr().String())
	if err != nil {
		s.fault("connect: %v", err)
		return nil
	}
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn.(*net.TCPConn)
}

// large is an object that doesn't fit into a socket.
func large() int { return 10*rand.IntN(objects/10) + 9 }

// hangUp leaves in the middle of a request or of an answer, rudely half the time.
func (s *soak) hangUp() {
	conn := s.dial()
	if conn == nil {
		return
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /o/%d HTTP/1.1\r\nHost: soak\r\n", large())
	if rand.IntN(4) > 0 {
		io.WriteString(conn, "\r\n")
		conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond)) // a refusal is short
		io.CopyN(io.Discard, conn, rand.Int64N(50_000))
	}
	if rand.IntN(2) == 0 {
		conn.SetLinger(0)
	}
	s.left.Add(1)
}

// dawdle sends slowly, reads slowly, or doesn't read at all.
func (s *soak) dawdle() {
	conn := s.dial()
	if conn == nil {
		return
	}
	defer conn.Close()
	switch i := large(); rand.IntN(3) {
	case 0: // a head that never ends
		for _, err := fmt.Fprintf(conn, "GET /o/%d HTTP/1.1\r\nHost: soak\r\nX: ", i); err == nil; _, err = io.WriteString(conn, "x") {
			time.Sleep(20 * time.Millisecond)
		}
	case 1: // reads by and by, and gets all
		i = 50*rand.IntN(objects/50) + 9
		least := s.floor[i].Load()
		conn.SetReadBuffer(64 << 10)
		fmt.Fprintf(conn, "GET /o/%d HTTP/1.1\r\nHost: %s\r\n\r\n", i, s.o.Addr())
		resp, err := http.ReadResponse(bufio.NewReaderSize(conn, 16<<10), nil)
		if err != nil {
			s.fault("a slow reader: %v", err)
			return
		}
		var content []byte
		for piece := make([]byte, 16<<10); err == nil; time.Sleep(10 * time.Millisecond) {
			var n int
			n, err = resp.Body.Read(piece)
			content = append(content, piece[:n]...)
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK && err == io.EOF {
			if err := check(i, least, content, 0, true); err != nil {
				s.fault("a slow reader: %v", err)
			}
		}
	default: // takes nothing of much, and is left
		conn.SetReadBuffer(4 << 10)
		for range 200 {
			if _, err := fmt.Fprintf(conn, "GET /o/%d HTTP/1.1\r\nHost: %s\r\n\r\n", i, s.o.Addr()); err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

type sample struct {
	goroutines, files int
	heap              uint64
}

// sample has all rest, prints a line, and holds what is left against the first sample.
func (s *soak) sample(begun time.Time, first *sample) sample {
	s.resting.Lock()
	defer s.resting.Unlock()
	s.transport.CloseIdleConnections()
	var now sample
	for end := time.Now().Add(4 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		now = sample{runtime.NumGoroutine(), files(), m.HeapAlloc}
		if settled := time.Until(end) < 3500*time.Millisecond; settled && (first == nil || first.holds(now)) || time.Now().After(end) {
			break
		}
	}
	rss, peak := resident()
	s.Logf("soak: %v; %d requests, %.0f %% hits, %d failed, %d cut off, %d late, %d clients left, %d purges, %d faults; %d goroutines, %d descriptors, heap %.1f MB, RSS %.0f MB, peak %.0f MB",
		time.Since(begun).Round(time.Second), s.requests.Load(), 100*float64(s.hits.Load())/float64(max(1, s.requests.Load())), s.failed.Load(), s.cut.Load(), s.late.Load(), s.left.Load(),
		s.purges.Load(), s.planted.Load(), now.goroutines, now.files, float64(now.heap)/1e6, rss/1e6, peak/1e6)
	if first != nil && !first.holds(now) {
		s.Errorf("it grows: %+v when warm, %+v now; allowed beyond are %d goroutines, %d descriptors, %.0f bytes of heap", *first, now, slackGoroutines, slackFiles, slackHeap)
	}
	most := budgetMB*1e6 + slackRSS
	if raceDetector {
		most = budgetMB*1e6 + slackRSSRace
	}
	if peak > most {
		s.Errorf("peak resident set: %.0f bytes, must be at most %.0f", peak, most)
	}
	return now
}

// holds reports whether there is no more now than when it was warm.
func (first sample) holds(now sample) bool {
	return now.goroutines <= first.goroutines+slackGoroutines && now.files <= first.files+slackFiles && float64(now.heap) <= float64(first.heap)+slackHeap
}

// files counts the descriptors; 0 where the system doesn't say.
func files() int {
	all, _ := os.ReadDir("/proc/self/fd")
	return len(all)
}

// resident is the process's resident set, and its peak, in bytes; 0 where the system
// doesn't say.
func resident() (now, peak float64) {
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		fmt.Sscanf(line, "VmRSS: %f", &now)
		fmt.Sscanf(line, "VmHWM: %f", &peak)
	}
	return now * 1024, peak * 1024
}

// recovers shows that nothing is held that nobody uses: what is asked for is stored.
func (s *soak) recovers() {
	time.Sleep(400 * time.Millisecond) // the breaker closes again
	again := 0
	for i := 4; i < objects; i += 8 { // of a lifetime of 30 s
		if size(i) > 1e6 {
			continue
		}
		for range 2 {
			resp, err := s.client.Do(s.request(http.MethodGet, i, nil))
			if err != nil {
				s.Errorf("afterwards: %v", err)
				return
			}
			content, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err == nil {
				err = check(i, s.floor[i].Load(), content, 0, true)
			}
			if err != nil {
				s.Errorf("afterwards: %d %v", resp.StatusCode, err)
				return
			}
			if resp.Header.Get("Cache-Status") == "optimizer; hit" {
				again++
				break
			}
		}
	}
	if want := objects / 8 * 9 / 10; again < want {
		s.Errorf("afterwards %d objects are found again, want %d", again, want)
	}
}
