// The OpenTelemetry Collector's own OTLP receiver over HTTP. It prints each request that it takes as a line of OTLP/JSON,
// for tests/e2e/tracing.rs: ADDRESS [CERTIFICATE KEY].
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	http := map[string]any{"endpoint": arguments[0], "include_metadata": true}
	if len(arguments) == 3 {
		http["tls"] = map[string]any{"cert_file": arguments[1], "key_file": arguments[2]}
	}
	factory := otlpreceiver.NewFactory()
	config := factory.CreateDefaultConfig()
	raw := confmap.NewFromStringMap(map[string]any{"protocols": map[string]any{"http": http}})
	if err := raw.Unmarshal(config); err != nil {
		return err
	}
	settings := receiver.Settings{
		ID:                component.NewID(factory.Type()),
		TelemetrySettings: componenttest.NewNopTelemetrySettings(),
		BuildInfo:         component.NewDefaultBuildInfo(),
	}
	marshaler := &ptrace.JSONMarshaler{}
	traces, err := consumer.NewTraces(func(_ context.Context, traces ptrace.Traces) error {
		line, err := marshaler.MarshalTraces(traces)
		if err == nil {
			_, err = fmt.Printf("%s\n", line)
		}
		return err
	})
	if err != nil {
		return err
	}
	ended, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	receiving, err := factory.CreateTraces(ended, settings, config, traces)
	if err != nil {
		return err
	}
	if err := receiving.Start(ended, componenttest.NewNopHost()); err != nil {
		return err
	}
	fmt.Println("{}")
	<-ended.Done()
	return receiving.Shutdown(context.Background())
}
