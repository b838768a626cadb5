package optimizer_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"phasegate/optimizer"
)

// What an idle connection may cost in memory of the process, on the heap and in stacks,
// measured after a collection. What the kernel has for it isn't the process's.
const idleBytes = 700

// Ten thousand clients that say nothing, a third of them not yet, a third after a hit
// and a third after a request that was lent, cost little, and all get a hit afterwards.
// Nothing runs beside this; the clients are a process of their own.
func TestTenThousandIdleConnections(t *testing.T) {
	n := 10_000
	if optimizer.RaceDetector {
		n = 2_000
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	before := limit
	limit.Cur = max(limit.Cur, min(limit.Max, uint64(n)+500))
	if limit.Cur < uint64(n)+500 {
		t.Skipf("NOT TESTED: %d idle connections need %d descriptors, and the hard limit is %d", n, n+500, limit.Max)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	defer syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before)
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hit" {
			w.Header().Set("Cache-Control", "max-age=3600")
		} else {
			w.Header().Set("Cache-Control", "no-store")
		}
		io.WriteString(w, "here")
	})
	p.get("/hit")
	p.client.CloseIdleConnections()
	used := func() (bytes int64, goroutines int) {
		for range 3 { // pools are emptied by the second
			runtime.GC()
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc + m.StackInuse), runtime.NumGoroutine()
	}
	least, few := used()

	clients := exec.Command(os.Args[0])
	clients.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d", clientsVariable, p.o.Addr(), n))
	clients.Stderr = os.Stderr
	in, err := clients.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := clients.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := clients.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { in.Close(); clients.Wait() }()
	said := bufio.NewScanner(out)
	if !said.Scan() || said.Text() != "connected" {
		t.Fatalf("the clients say %q", said.Text())
	}
	bytes, goroutines := used()
	for end := time.Now().Add(5 * time.Second); goroutines > few+100 && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		bytes, goroutines = used() // the last ones are on their way back
	}
	each := (bytes - least) / int64(n)
	t.Logf("%d idle connections: %d bytes each, %d goroutines more", n, each, goroutines-few)
	if each > idleBytes || goroutines > few+100 {
		t.Errorf("%d idle connections cost %d bytes each and %d goroutines, want at most %d and 100", n, each, goroutines-few, idleBytes)
	}
	if a := p.get("/hit"); a.cache() != "optimizer; hit" {
		t.Errorf("beside them: %d %s", a.status, a.cache())
	}
	fmt.Fprintln(in, "ask")
	if !said.Scan() || said.Text() != "all answered" {
		t.Errorf("the clients say %q", said.Text())
	}
}

const clientsVariable = "OPTIMIZER_TEST_CLIENTS"

// beClients is the other process: it opens so many connections to an address, and once
// it is told to, asks on each.
func beClients(what string) {
	var addr string
	var n int
	if _, err := fmt.Sscan(what, &addr, &n); err != nil {
		panic(err)
	}
	conns := make([]net.Conn, n)
	ask := func(i int, target string) {
		conns[i].SetDeadline(time.Now().Add(20 * time.Second))
		fmt.Fprintf(conns[i], "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, addr)
		resp, err := http.ReadResponse(bufio.NewReaderSize(conns[i], 512), nil)
		if err == nil {
			var body []byte
			if body, err = io.ReadAll(resp.Body); err == nil && string(body) != "here" {
				err = fmt.Errorf("%d %q", resp.StatusCode, body)
			}
		}
		if err != nil {
			fmt.Printf("client %d, %s: %v\n", i, target, err)
			os.Exit(1)
		}
	}
	for i := range conns {
		var err error
		if conns[i], err = net.Dial("tcp", addr); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		switch i % 3 {
		case 1:
			ask(i, "/hit")
		case 2:
			ask(i, "/lent")
		}
	}
	fmt.Println("connected")
	if line := bufio.NewScanner(os.Stdin); line.Scan() && strings.TrimSpace(line.Text()) == "ask" {
		for i := range conns {
			ask(i, "/hit")
		}
		fmt.Println("all answered")
	}
	io.Copy(io.Discard, os.Stdin)
}

func init() {
	if what := os.Getenv(clientsVariable); what != "" {
		beClients(what)
		os.Exit(0)
	}
}
