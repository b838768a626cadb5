package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"phasegate/fixtures/systems"
)

// The proxies that are asked over HTTP/2 and TLS.
const (
	h2Optimizer = "optimizer"
	h2Default   = "nginx, as it comes"
	h2Tuned     = "nginx, tuned" // by fixtures/systems
)

// nginxDefault is the configuration of Debian's package, with a site that caches: what
// isn't there is nginx's own default.
const nginxDefault = `daemon off;
%[5]s
worker_processes auto;
pid %[1]s/nginx.pid;
error_log %[1]s/error.log;
events { worker_connections 768; }
http {
    sendfile on;
    tcp_nopush on;
    types_hash_max_size 2048;
    default_type application/octet-stream;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_prefer_server_ciphers on;
    access_log %[1]s/access.log;
    gzip on;
    proxy_cache_path %[1]s/cache keys_zone=responses:20m;
    server {
        listen %[2]s ssl http2;
        ssl_certificate %[4]s;
        ssl_certificate_key %[4]s;
        location / {
            proxy_pass http://%[3]s;
            proxy_cache responses;
        }
    }
}
`

// h2Runs are how h2load asks. nginx as it comes ends a connection with its thousandth
// request, and h2load opens no other in its place: so for all a run is a thousand
// requests of each connection, over and over, handshakes included; and for those that
// keep connections, one long run.
var h2Runs = []struct {
	title string
	once  bool // runs of a fixed length, else of a fixed number of requests
	who   []string
}{
	{"runs of 1,000 requests on each of 16 connections, opened for it", false, []string{h2Optimizer, h2Default, h2Tuned}},
	{"16 connections that stay", true, []string{h2Optimizer, h2Tuned}},
}

// http2 prints what each proxy answers of hits over HTTP/2 and TLS: 16 connections with
// 32 streams each, one thread of h2load.
func (b proxyBench) http2(ctx context.Context, w io.Writer) error {
	h2load, err := exec.LookPath("h2load")
	if err != nil {
		return errors.New("h2load isn't there (Debian: apt-get install nghttp2-client)")
	}
	dir, err := os.MkdirTemp("", "http2-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	certificate := filepath.Join(dir, "certificate.pem")
	if err := writeCertificate(certificate); err != nil {
		return fmt.Errorf("make a certificate: %w", err)
	}
	upstream, stop, err := b.server("--fresh")
	if err != nil {
		return err
	}
	defer stop()
	all := map[string]proxy{}
	for i, name := range h2Runs[0].who {
		p, stop, err := b.startHTTP2(name, filepath.Join(dir, strconv.Itoa(i)), strings.TrimPrefix(upstream, "http://"), certificate)
		if errors.Is(err, errAbsent) {
			fmt.Fprintf(w, "%s: %v\n", name, err)
			continue
		}
		if err != nil {
			return fmt.Errorf("start %s: %w", name, err)
		}
		defer stop()
		if err := primeHTTP2(ctx, p.url+path); err != nil {
			return fmt.Errorf("fill the cache of %s: %w", name, err)
		}
		all[name] = p
	}
	fmt.Fprintf(w, "%d rounds in turn, %s a run; hits of one key, 16 connections x 32 streams, TLS; medians; OF: the optimizer's figure over the peer's, within a round\n", b.rounds, b.length)
	for _, run := range h2Runs {
		samples := map[string][]sample{}
		for round := range b.rounds {
			for _, name := range run.who {
				p, ok := all[name]
				if !ok {
					continue
				}
				fmt.Fprintf(os.Stderr, "round %d, %s, %s …\n", round+1, run.title, name)
				args := []string{"-c", "16", "-m", "32", "-t", "1"}
				if run.once {
					args = append(args, "-D", seconds(b.length))
				} else {
					args = append(args, "-n", "16000")
				}
				s, err := p.h2load(ctx, h2load, b.length, append(args, p.url+path)...)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", run.title, name, err)
				}
				samples[name] = append(samples[name], s)
			}
		}
		fmt.Fprintf(w, "\n%s\n", run.title)
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "PROXY\tREQUESTS/S\tOF\tCPU PER REQUEST\tOF\tRSS\tERRORS")
		for _, name := range run.who {
			runs, ours := samples[name], samples[h2Optimizer]
			if len(runs) == 0 {
				continue
			}
			rate := func(s sample) float64 { return float64(s.Requests) / s.Seconds }
			cpu := func(s sample) float64 { return s.cpu.Seconds() * 1e6 / float64(s.Requests) }
			value := func(f func(sample) float64) float64 {
				return medianOf(len(runs), func(i int) float64 { return f(runs[i]) })
			}
			of := func(f func(sample) float64) string {
				if name == h2Optimizer || len(ours) != len(runs) {
					return "-"
				}
				return fmt.Sprintf("%.2f", medianOf(len(runs), func(i int) float64 { return f(ours[i]) / f(runs[i]) }))
			}
			fmt.Fprintf(table, "%s\t%.0f\t%s\t%.1f µs\t%s\t%.0f MB\t%.0f\n", name, value(rate), of(rate), value(cpu), of(cpu),
				value(func(s sample) float64 { return float64(s.rss) / 1e6 }), value(func(s sample) float64 { return float64(s.Errors) }))
		}
		if err := table.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// h2load runs it until the length has passed, and adds up what it says.
func (p proxy) h2load(ctx context.Context, program string, length time.Duration, args ...string) (s sample, err error) {
	before, _, err := usage(p.process.Pid)
	if err != nil {
		return s, err
	}
	for begun := time.Now(); time.Since(begun) < length; {
		out, err := exec.CommandContext(ctx, program, args...).Output()
		if err != nil {
			return s, fmt.Errorf("run %s: %w", program, err)
		}
		good, err := match[int64](out, `status codes: (\d+) 2xx`)
		if err != nil {
			return s, fmt.Errorf("read what h2load printed, %.300q: %w", out, err)
		}
		bad, err := match[int64](out, `(\d+) failed`)
		if err != nil {
			return s, fmt.Errorf("read what h2load printed, %.300q: %w", out, err)
		}
		took, err := h2loadTook(out)
		if err != nil {
			return s, err
		}
		s.Requests, s.Errors, s.Seconds = s.Requests+good, s.Errors+bad, s.Seconds+took.Seconds()
	}
	after, rss, err := usage(p.process.Pid)
	if err != nil {
		return s, err
	}
	if s.Requests == 0 {
		return s, errors.New("no request was answered")
	}
	s.cpu, s.rss = after-before, rss
	return s, nil
}

// h2loadTook is how long a run took: "finished in 238.41ms, …".
func h2loadTook(out []byte) (time.Duration, error) {
	_, rest, _ := strings.Cut(string(out), "finished in ")
	text, _, _ := strings.Cut(rest, ",")
	took, err := time.ParseDuration(text)
	if err != nil || took <= 0 {
		return 0, fmt.Errorf("read how long h2load took: found %q", text)
	}
	return took, nil
}

// startHTTP2 starts a proxy that speaks TLS.
func (b proxyBench) startHTTP2(name, dir, upstream, certificate string) (p proxy, stop func(), err error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return p, nil, err
	}
	address, err := freeAddress()
	if err != nil {
		return p, nil, err
	}
	if name == h2Optimizer {
		return launch(name, "https", dir, address, command(filepath.Join(b.bin, "..", "optimizer"),
			"--upstream", "http://"+upstream, "--listen", address, "--tls-cert-file", certificate, "--tls-key-file", certificate))
	}
	program, err := exec.LookPath("nginx")
	if err != nil {
		return p, nil, errAbsent
	}
	settings := systems.Settings{Dir: dir, Listen: address, Upstream: upstream, CacheBytes: cacheBytes, Certificate: certificate, HTTP2: true}
	if me, err := user.Current(); err == nil && me.Uid == "0" {
		settings.User = me.Username
	}
	text := fmt.Sprintf(nginxDefault, dir, address, upstream, certificate, nginxUser(settings.User))
	if name == h2Tuned {
		if text, err = systems.Render(systems.Nginx, settings); err != nil {
			return p, nil, err
		}
	}
	file := filepath.Join(dir, systems.FileName(systems.Nginx))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return p, nil, err
	}
	return launch(name, "https", dir, address, command(program, systems.Arguments(systems.Nginx, file, settings)...))
}

func nginxUser(name string) string {
	if name == "" {
		return ""
	}
	return "user " + name + ";"
}

// primeHTTP2 asks once, and once more, which must be over HTTP/2.
func primeHTTP2(ctx context.Context, url string) error {
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	for range 2 {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2 {
			return fmt.Errorf("%s: %s, status %d, %w", url, resp.Proto, resp.StatusCode, err)
		}
	}
	return nil
}

// writeCertificate writes a key and its certificate for this machine.
func writeCertificate(file string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return os.WriteFile(file, slices.Concat(
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})), 0o600)
}
