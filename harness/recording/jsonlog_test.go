package recording

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseJSONLine(t *testing.T) {
	t.Parallel()
	at := time.Date(2015, 5, 17, 8, 5, 3, 0, time.UTC)
	for _, tt := range []struct {
		why, line      string
		at             time.Time
		method, target string
		status         int
		size           int64
	}{
		{"the request line, as in the combined format", `{"time_local":"17/May/2015:10:05:03 +0200","request":"GET /a?b=c HTTP/1.1","status":"200","body_bytes_sent":"512"}`, at, "GET", "/a?b=c", 200, 512},
		{"numbers without quotes, and milliseconds", `{"msec":1431849903.123,"request":"GET /a HTTP/2.0","status":200,"body_bytes_sent":512}`, at.Add(123 * time.Millisecond), "GET", "/a", 200, 512},
		{"the parts of the request", `{"time_iso8601":"2015-05-17T10:05:03+02:00","request_method":"PUT","request_uri":"/a?b","status":201,"bytes_sent":7}`, at, "PUT", "/a?b", 201, 7},
		{"as it was asked for rather than decoded", `{"msec":"1431849903","request_method":"GET","request_uri":"/a%20b","uri":"/a b","status":200}`, at, "GET", "/a%20b", 200, 0},
		{"decoded, it is encoded again", `{"time":"2015-05-17T08:05:03Z","method":"GET","uri":"/a b%é","args":"x=%20","status":200}`, at, "GET", "/a%20b%25%C3%A9?x=%20", 200, 0},
		{"no query", `{"time":1431849903,"method":"GET","uri":"/a","args":"","status":304,"body_bytes_sent":"-"}`, at, "GET", "/a", 304, 0},
		{"the finest of several times", `{"time_iso8601":"2015-05-17T10:05:03+02:00","msec":"1431849903.5","request":"GET /a HTTP/1.1","status":200}`, at.Add(time.Second / 2), "GET", "/a", 200, 0},
		{"what a log collector adds, and other fields of any kind", `{"@timestamp":"2015-05-17T08:05:03.25Z","request":"GET /a HTTP/1.1","status":200,"ssl":true,"up":[1,{"a":2}]}`, at.Add(time.Second / 4), "GET", "/a", 200, 0},
		{"a field without a value isn't there", `{"msec":null,"time_iso8601":"2015-05-17T08:05:03Z","request":"GET /a HTTP/1.1","status":200}`, at, "GET", "/a", 200, 0},
	} {
		got, err := parseJSONLine([]byte(tt.line))
		want := found{at: tt.at, method: tt.method, target: tt.target, status: tt.status, size: tt.size}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(found{})); err != nil || diff != "" {
			t.Errorf("%s: %v %s", tt.why, err, diff)
		}
	}
}

func TestParseJSONLineRefuses(t *testing.T) {
	t.Parallel()
	const rest = `,"request":"GET / HTTP/1.1","status":200}`
	for _, tt := range []struct{ why, line, want string }{
		{"cut off", `{"msec":1`, "not a JSON object"},
		{"two on a line", `{}{}`, "not a JSON object"},
		{"no time", `{"status":200` + rest, `no "msec"`},
		{"a time of another form", `{"time":"yesterday"` + rest, "neither seconds since 1970"},
		{"seconds before 1970", `{"msec":"-1.5"` + rest, "neither seconds since 1970"},
		{"a time that is none", `{"msec":{}` + rest, "where a string or a number is expected"},
		{"no request", `{"msec":1,"status":400,"request":""}`, `no "request"`},
		{"a method without a target", `{"msec":1,"status":400,"method":"GET"}`, `no "request"`},
		{"a tunnel", `{"msec":1,"status":400,"method":"CONNECT","request_uri":"/"}`, "tunnel"},
		{"a method that would begin another line", `{"msec":1,"status":400,"method":"GET /\r\n","request_uri":"/"}`, "token"},
		{"a target that would end the line", `{"msec":1,"status":200,"method":"GET","request_uri":"/a\r\nb"}`, "holds"},
		{"no status", `{"msec":1,"request":"GET / HTTP/1.1"}`, `no "status"`},
		{"a status out of range", `{"msec":1,"request":"GET / HTTP/1.1","status":"000"}`, "allowed is 100 to 599"},
		{"a size that is none", `{"msec":1,"request":"GET / HTTP/1.1","status":200,"bytes_sent":"many"}`, "size"},
	} {
		if got, err := parseJSONLine([]byte(tt.line)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %s is %+v, %v; want an error with %q", tt.why, tt.line, got, err, tt.want)
		}
	}
}

// A log may change its format on the way.
func TestFormatsMayAlternate(t *testing.T) {
	t.Parallel()
	r, err := parsed(accessLog, `{"msec":1431849903.5,"request":"GET /a HTTP/1.1","status":200}`+"\n"+common+`"GET /b HTTP/1.1" 200 1`+"\n{}\n")
	if err != nil || r.Requests() != 2 || r.Malformed != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}

func FuzzParseJSONLine(f *testing.F) {
	f.Add([]byte(`{"msec":1431849903.123,"request":"GET /a HTTP/2.0","status":200,"body_bytes_sent":512}`))
	f.Add([]byte(`{"time":"2015-05-17T08:05:03Z","method":"GET","uri":"/a b%é","args":"x=%20","status":"200"}`))
	f.Add([]byte(`{"msec":[]}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		q, err := parseJSONLine(line)
		if err != nil {
			return
		}
		if fault := unfit(q); fault != "" || q.status < 100 || q.status > 599 || q.at.IsZero() {
			t.Errorf("%q gives %+v: %s", line, q, fault)
		}
	})
}
