package upstream

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// names is a resolver that knows the addresses of one name, whatever it is asked for.
type names struct {
	mu        sync.Mutex
	addresses []string
	asked     int
}

func (n *names) set(addresses ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.addresses = addresses
}

func (n *names) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go n.serve(server)
		return client, nil
	}}
}

// serve answers one question in the form of DNS over TCP, which the Go resolver speaks on
// anything that isn't a packet connection.
func (n *names) serve(conn net.Conn) {
	defer conn.Close()
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return
	}
	packet := make([]byte, binary.BigEndian.Uint16(size[:]))
	var question dnsmessage.Message
	if _, err := io.ReadFull(conn, packet); err != nil || question.Unpack(packet) != nil {
		return
	}
	answer := dnsmessage.Message{Header: dnsmessage.Header{ID: question.ID, Response: true, Authoritative: true}, Questions: question.Questions}
	if q := question.Questions[0]; q.Type == dnsmessage.TypeA {
		n.mu.Lock()
		n.asked++
		for _, address := range n.addresses {
			answer.Answers = append(answer.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 3600},
				Body:   &dnsmessage.AResource{A: [4]byte(net.ParseIP(address).To4())},
			})
		}
		n.mu.Unlock()
	}
	packed, err := answer.Pack()
	if err != nil {
		return
	}
	conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(packed))), packed...))
}

// Of a name's addresses those that don't answer are passed over; and after
// max_connection_age a new address of the name is found.
func TestAddressesOfAName(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{HTTP1, H2C} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			first, err := net.Listen("tcp", "127.0.0.2:0")
			if err != nil {
				t.Skipf("no further loopback addresses: %v", err)
			}
			_, port, _ := net.SplitHostPort(first.Addr().String())
			second, err := net.Listen("tcp", "127.0.0.3:"+port)
			if err != nil {
				t.Skipf("the port is taken there: %v", err)
			}
			for name, ln := range map[string]net.Listener{"first": first, "second": second} {
				server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, name) }))
				server.Config.Protocols = new(http.Protocols)
				server.Config.Protocols.SetHTTP1(true)
				server.Config.Protocols.SetUnencryptedHTTP2(true)
				server.Listener.Close()
				server.Listener = ln
				server.Start()
				t.Cleanup(server.Close)
			}
			p, err := New(Config{URL: "http://api.test:" + port, Protocol: protocol, MaxConnectionAge: 50 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(p.Close)
			var n names
			p.dialer.Resolver = n.resolver()
			get := func() string {
				req, _ := http.NewRequestWithContext(t.Context(), "GET", p.url.String(), nil)
				resp, err := p.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				body, err := io.ReadAll(resp.Body)
				if err != nil {
					t.Fatal(err)
				}
				return string(body)
			}
			n.set("127.0.0.4", "127.0.0.2") // nobody listens at the one
			if got := get(); got != "first" {
				t.Fatalf("answered by %q", got)
			}
			n.set("127.0.0.3")
			for begun := time.Now(); get() != "second"; {
				if time.Since(begun) > 5*time.Second {
					t.Fatal("the new address is never asked")
				}
				time.Sleep(10 * time.Millisecond)
			}
			n.mu.Lock()
			defer n.mu.Unlock()
			if n.asked < 2 {
				t.Errorf("the name was resolved %d times", n.asked)
			}
		})
	}
}
