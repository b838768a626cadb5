package optimizer_test

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"phasegate/optimizer"
)

// logged is a log that the test reads.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) has(part string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), part)
}

func handover(path string, log io.Writer) option {
	return func(c *optimizer.Config) {
		c.Handover = path
		c.Logger = slog.New(slog.NewTextHandler(log, nil))
	}
}

func says(word string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, word) }
}

func handedOver(p *proxy) bool {
	select {
	case <-p.o.HandedOver():
		return true
	default:
		return false
	}
}

// One generation after another on the same two ports, and the last leaves no file.
func TestHandoverGoesFromOneToTheNext(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "socket")
	var log logged
	p := start(t, says("0"), handover(path, &log))
	for _, name := range []string{"1", "2"} {
		info, err := os.Lstat(path)
		if err != nil || info.Mode() != os.ModeSocket|0o600 {
			t.Fatalf("mode %v, %v, must be a socket for this user only", info.Mode(), err)
		}
		heir := start(t, says(name), handover(path, &log))
		eventually(t, "handed over", func() bool { return handedOver(p) })
		if heir.url != p.url || heir.admin != p.admin {
			t.Fatalf("from %s and %s to %s and %s", p.url, p.admin, heir.url, heir.admin)
		}
		if err := p.o.Stop(t.Context()); err != nil {
			t.Error(err)
		}
		if a := heir.get("/"); a.body != name {
			t.Errorf("answer %q, must be %q", a.body, name)
		}
		if resp, err := heir.client.Get(heir.admin + "/readyz"); err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("operators: %v", err)
		} else {
			resp.Body.Close()
		}
		p = heir
	}
	p.client.CloseIdleConnections()
	if err := p.o.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(path + "*"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// Streams of HTTP/2, over TLS or not, are finished by the elder, while new connections
// are the heir's.
func TestHandoverFinishesStreams(t *testing.T) {
	t.Parallel()
	for _, way := range []string{plainHTTP2, securedHTTP} {
		path := filepath.Join(t.TempDir(), "socket")
		arrived, release := make(chan bool, 1), make(chan bool)
		elder := startAs(t, way, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				arrived <- true
				<-release
			}
			io.WriteString(w, "elder")
		}, handover(path, io.Discard))
		got := make(chan string, 1)
		go func() {
			a, err := elder.try("GET", "/slow", "")
			if err != nil {
				t.Errorf("%s: under way: %v", way, err)
			}
			got <- a.body
		}()
		<-arrived
		heir := startAs(t, way, says("heir"), handover(path, io.Discard))
		eventually(t, "handed over", func() bool { return handedOver(elder) })
		stopped := make(chan error, 1)
		go func() { stopped <- elder.o.Stop(t.Context()) }()
		eventually(t, "new connections are the heir's", func() bool { // until its loops have stopped accepting, the elder's too
			heir.client.CloseIdleConnections()
			return heir.get("/").body == "heir"
		})
		time.Sleep(1200 * time.Millisecond) // beyond the grace: the last stream was named
		close(release)
		if body := <-got; body != "elder" {
			t.Errorf("%s: under way: %q", way, body)
		}
		if err := <-stopped; err != nil {
			t.Errorf("%s: %v", way, err)
		}
	}
}

// A socket whose address has changed isn't taken over; the others are.
func TestHandoverOfWhatIsConfiguredTheSame(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "socket")
	elder := start(t, says("elder"), handover(path, io.Discard))
	heir := start(t, says("heir"), handover(path, io.Discard), func(c *optimizer.Config) { c.Listen = "localhost:0" })
	eventually(t, "handed over", func() bool { return handedOver(elder) })
	if heir.url == elder.url || heir.admin != elder.admin {
		t.Errorf("from %s and %s to %s and %s", elder.url, elder.admin, heir.url, heir.admin)
	}
}

// Whatever becomes of the one that asked, the running one goes on.
func TestAnHeirThatFailsChangesNothing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "socket")
	var log logged
	p := start(t, says("elder"), handover(path, &log))

	// One that can't start: its operators' address is taken.
	taken := httptest.NewServer(nil)
	defer taken.Close()
	cfg := optimizer.Config{Listen: "127.0.0.1:0", Handover: path}
	cfg.Upstream.URL = taken.URL
	cfg.Admin.Listen = taken.Listener.Addr().String()
	heir, err := optimizer.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := heir.Start(t.Context()); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("start: %v", err)
	}
	if err := heir.Stop(t.Context()); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	eventually(t, "the log says that it gave up", func() bool { return log.has("gave up") })

	// One that is no optimizer.
	c, err := net.Dial("unixpacket", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if n, err := c.Read(make([]byte, 4<<10)); n == 0 {
		t.Fatal(err)
	}
	io.WriteString(c, "hello")
	eventually(t, "the log says what it said", func() bool { return log.has("hello") })

	if a := p.get("/"); a.body != "elder" || handedOver(p) {
		t.Errorf("answer %q, handed over: %v", a.body, handedOver(p))
	}
	next := start(t, says("heir"), handover(path, io.Discard))
	eventually(t, "handed over", func() bool { return handedOver(p) })
	if next.url != p.url {
		t.Errorf("from %s to %s", p.url, next.url)
	}
}

// What lies at the path when an optimizer starts.
func TestHandoverPaths(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	listen := func(name, network string) *net.UnixListener {
		l, err := net.ListenUnix(network, &net.UnixAddr{Name: filepath.Join(dir, name), Net: network})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	stale := listen("stale", "unixpacket")
	stale.SetUnlinkOnClose(false)
	stale.Close()
	other := listen("other", "unix")
	defer other.Close()
	refuses := listen("refuses", "unixpacket")
	var asked sync.WaitGroup
	asked.Go(func() {
		for c, err := refuses.Accept(); err == nil; c, err = refuses.Accept() {
			c.Close()
		}
	})
	defer func() { refuses.Close(); asked.Wait() }()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, fault, warning string }{
		{"nothing", "", ""},
		{"stale", "", ""},
		{"refuses", "", "hung up"},
		{"file", "isn't a socket", ""},
		{"other", "wrong type", ""},
		{"nowhere/socket", "no such file", ""},
		{strings.Repeat("x", 100), "at most 96", ""},
	} {
		var log logged
		cfg := optimizer.Config{Listen: "127.0.0.1:0"}
		cfg.Upstream.URL = "http://127.0.0.1:9"
		handover(filepath.Join(dir, tt.name), &log)(&cfg)
		o, err := optimizer.New(cfg)
		if err == nil {
			if err = o.Start(t.Context()); err == nil {
				if info, lost := os.Lstat(cfg.Handover); lost != nil || info.Mode() != os.ModeSocket|0o600 {
					t.Errorf("%s: %v, %v, must be a socket for this user only", tt.name, info, lost)
				}
			}
			if stopped := o.Stop(t.Context()); err == nil && stopped != nil {
				t.Errorf("%s: stop: %v", tt.name, stopped)
			}
		}
		if (err == nil) != (tt.fault == "") || err != nil && !strings.Contains(err.Error(), tt.fault) {
			t.Errorf("%s: %v, must be %q", tt.name, err, tt.fault)
		}
		if !log.has(tt.warning) || tt.warning == "" && log.has("WARN") {
			t.Errorf("%s: log %q, must have %q", tt.name, log.text.String(), tt.warning)
		}
	}
	if text, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(text) != "text" {
		t.Errorf("the file is now %q, %v", text, err)
	}
}

// An optimizer that is told to stop while an heir makes up its mind doesn't wait for it.
func TestStopDuringAHandover(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "socket")
	p := start(t, says("elder"), handover(path, io.Discard))
	c, err := net.Dial("unixpacket", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if n, err := c.Read(make([]byte, 4<<10)); n == 0 {
		t.Fatal(err)
	}
	begun := time.Now()
	if err := p.o.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("stop took %v", took)
	}
}
