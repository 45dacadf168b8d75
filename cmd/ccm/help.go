package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-base/term"
)

// helpSections says where --help shows a flag: in the first section that has its name or a beginning of it (ending in *).
// What fits nowhere comes last.
var helpSections = []struct {
	title string
	flags []string
}{
	{"UpCloud", []string{"credentials-dir", "cloud-config", "load-balancer-*"}},
	{"Routes", []string{"configure-cloud-routes", "cluster-cidr", "route-reconciliation-period"}},
	{"Kubernetes", []string{"kubeconfig", "master", "cluster-name", "controllers", "concurrent-*", "node-*", "leader-elect*",
		"use-service-account-credentials", "kube-api-*"}},
	{"General", []string{"help", "version", "v", "vmodule", "log-*", "logging-*"}},
	{"Serving health and metrics", []string{"bind-address", "secure-port", "readiness-port", "permit-*", "cert-dir", "tls-*", "http2-*",
		"authentication-*", "authorization-*", "client-ca-file", "requestheader-*", "profiling", "contention-profiling"}},
}

// withoutUse are flags of k8s.io/cloud-provider that change nothing here. They are accepted, as manifests have them.
var withoutUse = []string{
	"allocate-node-cidrs", "allow-untagged-cloud", "cidr-allocator-type", "cloud-provider", "external-cloud-volume-plugin",
}

// setHelp makes --help show what our users need first.
func setHelp(command *cobra.Command) {
	for _, name := range withoutUse {
		if flag := command.Flags().Lookup(name); flag != nil {
			flag.Hidden = true
		}
	}
	for name, usage := range map[string]string{
		"cloud-config": "configuration file, of the kind CCMConfig that UpCloud's own cloud controller manager reads",
		"help":         "print this help and exit",
		"configure-cloud-routes": "keep each node's Pod CIDRs as static routes on the router of the nodes' private network; the " +
			"configuration file's routerUUID, createRouter and manageSourceIPFiltering say which and how",
		"cluster-cidr":                "the cluster's Pod network, or two of both families; with --configure-cloud-routes alone",
		"route-reconciliation-period": "how often the router's routes are compared with the Nodes'",
	} {
		if flag := command.Flags().Lookup(name); flag != nil {
			flag.Usage = usage
		}
	}
	command.SetUsageFunc(func(command *cobra.Command) error {
		_, err := fmt.Fprintln(command.OutOrStderr(), "Usage:\n  ccm [flags]")
		return err
	})
	command.SetHelpFunc(func(command *cobra.Command, _ []string) {
		out := command.OutOrStdout()
		columns, _, _ := term.TerminalSize(out)
		fmt.Fprintf(out, "%s\n\nUsage:\n  ccm [flags]\n", command.Long)
		cliflag.PrintSections(out, helpFlags(command.Flags()), columns)
	})
}

func helpFlags(all *pflag.FlagSet) cliflag.NamedFlagSets {
	var sections cliflag.NamedFlagSets
	for _, section := range helpSections {
		sections.FlagSet(section.title)
	}
	all.VisitAll(func(flag *pflag.Flag) {
		for _, section := range helpSections {
			if slices.ContainsFunc(section.flags, func(pattern string) bool { return matches(pattern, flag.Name) }) {
				sections.FlagSet(section.title).AddFlag(flag)
				return
			}
		}
		sections.FlagSet("Other").AddFlag(flag)
	})
	return sections
}

func matches(pattern, name string) bool {
	beginning, open := strings.CutSuffix(pattern, "*")
	return name == pattern || open && strings.HasPrefix(name, beginning)
}
