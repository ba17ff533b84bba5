// A Kubernetes cluster in one program: the real components, each in the role that the program is
// called by (the last part of argv[0]) or that its first argument names. README.md lists them.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"headgate.dev/cluster/kubelets"
	"headgate.dev/cluster/oracle"
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // clients' metrics in the components
	_ "k8s.io/component-base/metrics/prometheus/version"  // the version's metric
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
)

// What the program can be. Components of Kubernetes are processes of their own, since feature
// gates are global to one.
var roles = map[string]func() error{
	"apiserver":   runAPIServer,
	"etcd":        runEtcd,
	"compact":     compactEtcd,
	"controllers": func() error { return exit(cli.Run(controllers.NewControllerManagerCommand())) },
	"kube-proxy":  func() error { return exit(cli.Run(proxy.NewProxyCommand())) },
	"kubectl":     runKubectl,
	"kubelets":    kubelets.Run,
	"echo":        runEcho,
	"pki":         runPKI,
	"oracle":      oracle.Run,
}

func main() {
	role := strings.TrimPrefix(filepath.Base(os.Args[0]), "kube-")
	if role == "proxy" {
		role = "kube-proxy"
	}
	if roles[role] == nil && len(os.Args) > 1 {
		role = os.Args[1]
		// The components read their arguments themselves.
		os.Args = append([]string{role}, os.Args[2:]...)
	}
	run := roles[role]
	if run == nil {
		fmt.Fprintf(os.Stderr, "error: no such role; the first argument is one of: %s\n", roleNames())
		os.Exit(2)
	}
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "error: %s: %v\n", role, err)
		os.Exit(1)
	}
}

func roleNames() string {
	names := make([]string, 0, len(roles))
	for name := range roles {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// exit ends the program with a component's own exit code.
func exit(code int) error {
	os.Exit(code)
	return nil
}

// runAPIServer is the API server with its own flags. One flag more, --etcd-dir=DIR, starts an etcd
// inside of the process in place of --etcd-servers.
func runAPIServer() error {
	for index, arg := range os.Args {
		dir, found := strings.CutPrefix(arg, "--etcd-dir=")
		if !found {
			continue
		}
		const client = "http://127.0.0.1:2379"
		if _, err := startEtcd(dir, []string{client}, "http://127.0.0.1:2380"); err != nil {
			return err
		}
		os.Args[index] = "--etcd-servers=" + client
	}
	return exit(cli.Run(apiserver.NewAPIServerCommand()))
}

func runKubectl() error {
	// The verbosity is needed before the command line is parsed, as in kubectl's own main.
	if _, err := logs.GlogSetter(kubectl.GetLogVerbosity(os.Args)); err != nil {
		return err
	}
	if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
		kubectlutil.CheckErr(err)
	}
	return nil
}
