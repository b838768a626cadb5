package upstream_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"phasegate/optimizer/upstream"
)

const good = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood"

// scripted is an upstream of HTTP/1.1. What each of its connections does, in order of
// opening, is in the script; the last entry is for all that follow.
func scripted(t *testing.T, script ...func(conn net.Conn, r *bufio.Reader)) *upstream.Pool {
	t.Helper()
	var opened atomic.Int64
	return newPool(t, upstream.Config{URL: "http://" + listen(t, nil, func(conn net.Conn) {
		n := int(opened.Add(1))
		script[min(n, len(script))-1](conn, bufio.NewReader(conn))
	}), FirstByteTimeout: 20 * time.Second})
}

// next reads a request and writes these bytes.
func next(conn net.Conn, r *bufio.Reader, answer string) bool {
	req, err := http.ReadRequest(r)
	if err != nil {
		return false
	}
	io.Copy(io.Discard, req.Body)
	_, err = io.WriteString(conn, answer)
	return err == nil
}

// well answers until the other side closes.
func well(conn net.Conn, r *bufio.Reader) {
	for next(conn, r, good) {
	}
}

// closes answers once.
func closes(answer string) func(net.Conn, *bufio.Reader) {
	return func(conn net.Conn, r *bufio.Reader) { next(conn, r, answer) }
}

// A connection carries another request only if it is where the other one's answer ended:
// bytes too many are no answer to the next request.
func TestAConnectionIsKeptOnlyWhereAnAnswerEnds(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why, first string // answer
		dials      uint64
	}{
		{"well", good, 1},
		{"in chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\nX-Trailer: 1\r\n\r\n", 1},
		{"no body", "HTTP/1.1 204 No Content\r\n\r\n", 1},
		{"after an interim response", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + good, 1},
		{"it says that it closes", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\ngood", 2},
		{"its end is the connection's", "HTTP/1.1 200 OK\r\n\r\n", 2},
		{"HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\ngood", 2},
		{"an answer that nobody asked for", good + "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", 2},
		{"a body where there is none", "HTTP/1.1 204 No Content\r\n\r\nevil", 2},
	} {
		t.Run(tt.why, func(t *testing.T) {
			t.Parallel()
			p := scripted(t, func(conn net.Conn, r *bufio.Reader) {
				if next(conn, r, tt.first) && (tt.dials == 1 || strings.Contains(tt.first, "Content-Length")) {
					well(conn, r)
				}
			}, well)
			if _, _, err := ask(t, p, "GET"); err != nil {
				t.Fatal(err)
			}
			for range 3 { // a POST isn't sent again, so that each has to arrive
				if _, body, err := ask(t, p, "POST"); body != "good" || err != nil {
					t.Errorf("the next one: %q, %v", body, err)
				}
			}
			if s := p.Stats(); s.Dials != tt.dials {
				t.Errorf("%d connections, want %d", s.Dials, tt.dials)
			}
		})
	}
}

// What comes on a connection between two requests ends it, be it the end or a farewell
// such as 408: neither is an answer to the next request.
func TestAKeptConnectionThatSpeaksIsClosed(t *testing.T) {
	t.Parallel()
	for _, farewell := range []string{"", "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"} {
		said := make(chan bool)
		p := scripted(t, func(conn net.Conn, r *bufio.Reader) {
			next(conn, r, good)
			if farewell != "" {
				io.WriteString(conn, farewell)
				close(said)
				io.Copy(io.Discard, conn) // stays
				return
			}
			conn.Close()
			close(said)
		}, well)
		if _, _, err := ask(t, p, "GET"); err != nil {
			t.Fatal(err)
		}
		<-said
		if status, body, err := ask(t, p, "POST"); status != 200 || body != "good" || err != nil {
			t.Errorf("after %q: %d %q, %v", farewell, status, body, err)
		}
		if s := p.Stats(); s.Dials != 2 || s.Retries["lost"] != 0 {
			t.Errorf("after %q: %+v", farewell, s)
		}
	}
}

// An upstream may answer, and even close, without reading the whole of a request.
func TestAnAnswerBeforeTheRequestsEnd(t *testing.T) {
	t.Parallel()
	p := scripted(t, func(conn net.Conn, r *bufio.Reader) {
		http.ReadRequest(r)
		io.WriteString(conn, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n\r\nmuch")
		io.Copy(io.Discard, r)
	}, well)
	body, client := io.Pipe() // the client sends nothing
	req, _ := http.NewRequestWithContext(t.Context(), "POST", p.URL().String(), body)
	resp, err := p.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(resp.Body); resp.StatusCode != 413 || string(got) != "much" || err != nil {
		t.Errorf("%d %q, %v", resp.StatusCode, got, err)
	}
	resp.Body.Close()
	client.Close()
	if _, got, err := ask(t, p, "POST"); got != "good" || err != nil {
		t.Errorf("the next one: %q, %v", got, err)
	}
	if s := p.Stats(); s.Dials != 2 {
		t.Errorf("the connection was kept in the middle of a request: %+v", s)
	}
}

// What the client doesn't deliver isn't the upstream's fault, and doesn't wait for it.
func TestABodyThatCantBeRead(t *testing.T) {
	t.Parallel()
	broken := fmt.Errorf("%w: gone", upstream.ErrRequestBody)
	p := scripted(t, func(conn net.Conn, r *bufio.Reader) { io.Copy(io.Discard, r) })
	req, _ := http.NewRequestWithContext(t.Context(), "PUT", p.URL().String(), io.MultiReader(strings.NewReader("part"), iotest.ErrReader(broken)))
	if _, err := p.Do(req); !errors.Is(err, upstream.ErrRequestBody) {
		t.Errorf("%v", err)
	}
	if s := p.Stats(); s.Dials != 1 {
		t.Errorf("sent again: %+v", s)
	}
}

// Whatever ends an exchange early gives its place back, and closes its connection.
func TestExchangesThatEndEarly(t *testing.T) {
	t.Parallel()
	cause := errors.New("enough")
	for _, tt := range []struct {
		why    string
		answer string
		act    func(cancel context.CancelCauseFunc, resp *http.Response) error
		want   error // of Do, or of act
	}{
		{"cancelled before the header", "", nil, cause},
		{"cancelled in the body", "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf", func(cancel context.CancelCauseFunc, resp *http.Response) error {
			io.ReadFull(resp.Body, make([]byte, 4))
			cancel(cause)
			_, err := resp.Body.Read(make([]byte, 4))
			return err
		}, cause},
		{"closed in the body", "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf", func(_ context.CancelCauseFunc, resp *http.Response) error {
			return resp.Body.Close()
		}, nil},
		{"a header without end", "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: "+strings.Repeat("x", 1000)+"\r\n", 300), nil, upstream.ErrHeaderTooLong},
		{"interim responses without end", strings.Repeat("HTTP/1.1 103 Early Hints\r\nX: "+strings.Repeat("x", 1000)+"\r\n\r\n", 300), nil, upstream.ErrHeaderTooLong},
		{"no HTTP", "SSH-2.0-OpenSSH\r\n\r\n", nil, nil},
		{"another protocol, unasked", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", nil, nil},
	} {
		t.Run(tt.why, func(t *testing.T) {
			t.Parallel()
			asked := make(chan bool, 10)
			p := scripted(t, func(conn net.Conn, r *bufio.Reader) {
				next(conn, r, tt.answer)
				asked <- true
				io.Copy(io.Discard, r)
			})
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			if tt.answer == "" {
				go func() { <-asked; cancel(cause) }()
			}
			req, _ := http.NewRequestWithContext(ctx, "GET", p.URL().String(), nil)
			resp, err := p.Do(req)
			if tt.act != nil {
				if err != nil {
					t.Fatal(err)
				}
				err = tt.act(cancel, resp)
				resp.Body.Close()
			} else if err == nil {
				t.Fatalf("status %d", resp.StatusCode)
			}
			if tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
			until(t, "over", func() bool {
				s := p.Stats()
				u := s.Protocol["http/1.1"]
				return u.Active == 0 && u.Idle == 0 && s.Dials == 1
			})
		})
	}
}

func TestInterimResponsesAreReported(t *testing.T) {
	t.Parallel()
	p := scripted(t, closes("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"+good))
	got := ""
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(status int, header textproto.MIMEHeader) error {
		got += fmt.Sprint(status, " ", header, " ")
		return nil
	}})
	req, _ := http.NewRequestWithContext(ctx, "GET", p.URL().String(), nil)
	resp, err := p.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if want := "102 map[] 103 map[Link:[</a>]] "; got != want || resp.StatusCode != 200 {
		t.Errorf("%q, %d; want %q", got, resp.StatusCode, want)
	}
}

// The time to the first byte begins with the request's end, and doesn't bound the body.
func TestFirstByteTimeoutOfHTTP1(t *testing.T) {
	t.Parallel()
	const bound = 300 * time.Millisecond
	address := listen(t, nil, func(conn net.Conn) {
		r := bufio.NewReader(conn)
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			io.Copy(io.Discard, req.Body)
			if req.Method == "GET" {
				continue // never
			}
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf")
			time.Sleep(2 * bound)
			io.WriteString(conn, "half")
		}
	})
	p := newPool(t, upstream.Config{URL: "http://" + address, FirstByteTimeout: bound})
	if _, _, err := ask(t, p, "GET"); !errors.Is(err, os.ErrDeadlineExceeded) || !strings.Contains(err.Error(), "first_byte_timeout") {
		t.Errorf("%v", err)
	}
	slow, client := io.Pipe()
	go func() {
		time.Sleep(2 * bound)
		io.WriteString(client, "body")
		client.Close()
	}()
	req, _ := http.NewRequestWithContext(t.Context(), "POST", p.URL().String(), slow)
	resp, err := p.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); string(body) != "halfhalf" || err != nil {
		t.Errorf("%q, %v", body, err)
	}
}

// The error says how the connection ended, not that the exchange was called off.
func TestTheErrorOfAConnectionThatEnded(t *testing.T) {
	t.Parallel()
	address := listen(t, nil, func(conn net.Conn) { http.ReadRequest(bufio.NewReader(conn)) })
	p := newPool(t, upstream.Config{URL: "http://" + address, RetryBudget: new(0.0)})
	if _, _, err := ask(t, p, "GET"); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%v, want EOF", err)
	}
}

// A client that isn't listened to any more ends its body. That is nothing to the answer,
// which is on its way.
func TestAnEarlyAnswerIsReadToItsEnd(t *testing.T) {
	t.Parallel()
	rest := make(chan bool)
	p := scripted(t, func(conn net.Conn, r *bufio.Reader) {
		http.ReadRequest(r)
		io.WriteString(conn, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 8\r\n\r\nmuch")
		<-rest
		io.WriteString(conn, "much")
		io.Copy(io.Discard, r)
	})
	body, client := io.Pipe()
	req, _ := http.NewRequestWithContext(t.Context(), "POST", p.URL().String(), body)
	resp, err := p.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	client.CloseWithError(upstream.ErrRequestBody)
	time.AfterFunc(30*time.Millisecond, func() { close(rest) })
	if got, err := io.ReadAll(resp.Body); string(got) != "muchmuch" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	resp.Body.Close()
}

// An upstream that dies isn't waited for until its client has sent the rest.
func TestAnUploadsEndIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	p := scripted(t, func(conn net.Conn, r *bufio.Reader) {
		http.ReadRequest(r)
		conn.(*net.TCPConn).SetLinger(0)
	})
	body, client := io.Pipe()
	defer client.Close() // not before the answer
	go io.WriteString(client, "part")
	req, _ := http.NewRequestWithContext(t.Context(), "POST", p.URL().String(), body)
	req.ContentLength = 8
	if _, err := p.Do(req); err == nil || errors.Is(err, upstream.ErrRequestBody) {
		t.Errorf("%v, must be the upstream's fault", err)
	}
}

// A body of known length goes up as it comes.
func TestUploadsAreNotHeldBack(t *testing.T) {
	t.Parallel()
	arrived := make(chan string)
	p := scripted(t, func(conn net.Conn, r *bufio.Reader) {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		for {
			b := make([]byte, 100)
			n, err := req.Body.Read(b)
			if n > 0 {
				arrived <- string(b[:n])
			}
			if err != nil {
				break
			}
		}
		io.WriteString(conn, good)
	})
	body, client := io.Pipe()
	req, _ := http.NewRequestWithContext(t.Context(), "POST", p.URL().String(), body)
	req.ContentLength = 8
	done := make(chan error)
	go func() {
		resp, err := p.Do(req)
		if err == nil {
			resp.Body.Close()
		}
		done <- err
	}()
	for range 2 {
		io.WriteString(client, "part")
		if got := <-arrived; got != "part" {
			t.Errorf("%q", got)
		}
	}
	client.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A cancellation in the moment of an answer doesn't cut the next request off.
func TestACancellationStaysWithItsRequest(t *testing.T) {
	t.Parallel()
	_, adopt := adopter(t, 0)
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		address := listen(t, nil, func(conn net.Conn) {
			r := bufio.NewReader(conn)
			for first := true; ; first = false {
				if _, err := http.ReadRequest(r); err != nil {
					return
				}
				if first {
					go cancel()
					<-ctx.Done()
				}
				io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
			}
		})
		p := newPool(t, upstream.Config{URL: "http://" + address, Adopt: adopt})
		for range 5000 { // each takes the cancellation some time
			_, stop := context.WithCancel(ctx)
			defer stop()
		}
		req, _ := http.NewRequestWithContext(ctx, "GET", p.URL().String(), nil)
		if resp, err := p.Do(req); err == nil {
			resp.Body.Close()
		}
		if _, _, err := ask(t, p, "POST"); err != nil {
			t.Fatalf("another request: %v", err)
		}
	}
}

// What would make two requests of one isn't sent.
func TestRequestsAreWellFormed(t *testing.T) {
	t.Parallel()
	p := scripted(t, well)
	for _, spoil := range []func(*http.Request){
		func(r *http.Request) { r.Method = "GET / HTTP/1.1\r\n\r\nGET" },
		func(r *http.Request) { r.Header["A b"] = []string{"x"} },
		func(r *http.Request) { r.Header["A"] = []string{"x\r\nB: c"} },
	} {
		req, _ := http.NewRequestWithContext(t.Context(), "GET", p.URL().String(), nil)
		spoil(req)
		if resp, err := p.Do(req); err == nil {
			resp.Body.Close()
			t.Errorf("%q %v was sent", req.Method, req.Header)
		}
	}
	if s := p.Stats(); s.Dials != 0 {
		t.Errorf("%+v", s)
	}
}

// An upstream that speaks only HTTP/2 in clear text answers HTTP/1.1 with SETTINGS. It is
// asked once, nobody waits for more, and the error says what to set.
func TestAnAnswerInHTTP2SaysWhatToSet(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why, protocol, settings string
		hint                    bool
	}{
		{"under auto", "auto", "\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64", true},
		{"with a line's end in it", "http/1.1", "\x00\x00\x0a\x04\x00\x00\x00\x00\x00\n", true},
		{"another frame", "auto", "\x00\x00\x04\x07\x00\x00\x00\x00\x00\n", false},
	} {
		for _, pieces := range []int{1, 2} {
			t.Run(fmt.Sprint(tt.why, ", in pieces of ", pieces), func(t *testing.T) {
				t.Parallel()
				p := newPool(t, upstream.Config{Protocol: tt.protocol, URL: "http://" + listen(t, nil, func(conn net.Conn) {
					if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
						return
					}
					for piece := range slices.Chunk([]byte(tt.settings), len(tt.settings)/pieces) {
						conn.Write(piece)
					}
					io.Copy(io.Discard, conn)
				})})
				_, _, err := ask(t, p, "GET")
				if err == nil || strings.Contains(err.Error(), "set upstream.protocol: h2c") != tt.hint {
					t.Errorf("error %v", err)
				}
				if s := p.Stats(); s.Dials != 1 {
					t.Errorf("%d connections", s.Dials)
				}
			})
		}
	}
}
