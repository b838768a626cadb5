//go:build !linux

package optimizer

import (
	"context"
	"errors"
	"net"
)

func checkHandover(path string) error {
	if path != "" {
		return errors.New("is for Linux only")
	}
	return nil
}

// elder and bequest are never there: checkHandover allows no path.
type (
	elder   struct{}
	bequest struct{}
)

func askElder(context.Context, string) (e elder, refused, err error) { return e, nil, nil }

func (*elder) listen(ctx context.Context, _ int, address string) (net.Listener, error) {
	return new(net.ListenConfig).Listen(ctx, "tcp", address)
}

func (*elder) serving() error { return nil }
func (*elder) close()         {}

func listenForHeir(string) (*bequest, error) { return nil, errors.ErrUnsupported }
func (*bequest) publish() error              { return nil }
func (*bequest) close()                      {}
func (*Optimizer) waitForHeir(*bequest)      {}
