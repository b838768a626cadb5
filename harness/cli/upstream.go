package cli

import (
	"context"

	"phasegate/fixtures/upstream"
)

type upstreamCommand struct {
	Config string `required:"" placeholder:"FILE" help:"Configuration (JSON); - reads standard input."`
}

// Run implements the command.
func (c *upstreamCommand) Run(ctx context.Context, std Streams) error {
	return upstream.Main(ctx, std.In, std.Out, c.Config)
}
