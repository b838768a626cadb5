package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What isn't the folder of a run is bad input, whatever it is.
func TestVerifyOfWhatIsNoRun(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "result.json")
	if err := os.WriteFile(file, []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, file, filepath.Join(dir, "nothing"), filepath.Join(file, "below")} {
		code, out, err := call("verify", path)
		if code != exitUsage || out != "" || !strings.Contains(err, "not a finished run") || !strings.Contains(err, "Name the output folder of a run") {
			t.Errorf("%s: exit code %d, %s%s", path, code, out, err)
		}
	}
}
