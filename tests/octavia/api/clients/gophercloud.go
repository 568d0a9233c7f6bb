// What terraform's provider and cloud-provider-openstack ask, by the library that both are made with. What its release does not
// know is sent as these two send it.
package main

import (
	"fmt"
	"os"
	"time"

	"github.com/gophercloud/gophercloud"
	"github.com/gophercloud/gophercloud/openstack"
	"github.com/gophercloud/gophercloud/openstack/loadbalancer/v2/apiversions"
	"github.com/gophercloud/gophercloud/openstack/loadbalancer/v2/l7policies"
	"github.com/gophercloud/gophercloud/openstack/loadbalancer/v2/listeners"
	"github.com/gophercloud/gophercloud/openstack/loadbalancer/v2/loadbalancers"
	"github.com/gophercloud/gophercloud/openstack/loadbalancer/v2/monitors"
	"github.com/gophercloud/gophercloud/openstack/loadbalancer/v2/pools"
	"github.com/gophercloud/gophercloud/openstack/loadbalancer/v2/providers"
	"github.com/gophercloud/gophercloud/openstack/networking/v2/extensions"
	"github.com/gophercloud/gophercloud/openstack/networking/v2/extensions/layer3/floatingips"
	"github.com/gophercloud/gophercloud/openstack/networking/v2/networks"
	"github.com/gophercloud/gophercloud/openstack/networking/v2/ports"
	"github.com/gophercloud/gophercloud/openstack/networking/v2/subnets"
	"github.com/gophercloud/gophercloud/pagination"
)

var (
	lb, net        *gophercloud.ServiceClient
	passed, failed int
)

type object = map[string]interface{}

// check counts one check; without an error it has passed.
func check(name string, err error) bool {
	if err == nil {
		passed++
		return true
	}
	failed++
	fmt.Printf("FAILED %s: %v\n", name, err)
	return false
}

// that is an error unless it is so.
func that(so bool, format string, values ...interface{}) error {
	if so {
		return nil
	}
	return fmt.Errorf(format, values...)
}

// status is what a request was answered with, for errors.
func status(err error) int {
	switch e := err.(type) {
	case gophercloud.ErrDefault400:
		return 400
	case gophercloud.ErrDefault403:
		return 403
	case gophercloud.ErrDefault404:
		return 404
	case gophercloud.ErrDefault409:
		return 409
	case gophercloud.ErrUnexpectedResponseCode:
		return e.Actual
	}
	return 0
}

// refused checks that a request was answered with a status.
func refused(name string, err error, expected int) {
	check(name, that(status(err) == expected, "%d expected: %v", expected, err))
}

// active waits as cloud-provider-openstack does, at a shorter interval.
func active(id string) *loadbalancers.LoadBalancer {
	for n := 0; n < 600; n++ {
		found, err := loadbalancers.Get(lb, id).Extract()
		if err != nil || found.ProvisioningStatus == "ERROR" {
			check("wait for "+id, fmt.Errorf("%v: %+v", err, found))
			return found
		}
		if found.ProvisioningStatus == "ACTIVE" {
			return found
		}
		time.Sleep(50 * time.Millisecond)
	}
	check("wait for "+id, fmt.Errorf("it is not ACTIVE"))
	return &loadbalancers.LoadBalancer{}
}

func gone(id string) error {
	for n := 0; n < 600; n++ {
		if _, err := loadbalancers.Get(lb, id).Extract(); status(err) == 404 {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("%s is still there", id)
}

// send is a request whose shape the library does not know yet.
func send(method, path string, body, answer interface{}, codes ...int) error {
	options := gophercloud.RequestOpts{JSONBody: body, JSONResponse: answer, OkCodes: codes}
	_, err := lb.Request(method, lb.ServiceURL(path), &options)
	return err
}

func names(pager pagination.Pager, extract func(pagination.Page) []string) ([]string, error) {
	all := []string{}
	err := pager.EachPage(func(page pagination.Page) (bool, error) {
		all = append(all, extract(page)...)
		return true, nil
	})
	return all, err
}

func balancers(options loadbalancers.ListOpts) ([]string, error) {
	return names(loadbalancers.List(lb, options), func(page pagination.Page) (all []string) {
		found, _ := loadbalancers.ExtractLoadBalancers(page)
		for _, one := range found {
			all = append(all, one.Name)
		}
		return
	})
}

func must(name string, err error) {
	if !check(name, err) {
		end()
	}
}

func end() {
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 {
		os.Exit(1)
	}
	os.Exit(0)
}

func ptr(n int) *int { return &n }

func text(s string) *string { return &s }

func main() {
	options, err := openstack.AuthOptionsFromEnv()
	must("environment", err)
	provider, err := openstack.AuthenticatedClient(options)
	must("token", err)
	region := gophercloud.EndpointOpts{Region: "RegionOne"}
	lb, err = openstack.NewLoadBalancerV2(provider, region)
	must("endpoint of load balancers", err)
	net, err = openstack.NewNetworkV2(provider, region)
	must("endpoint of networks", err)

	versions()
	network, subnet := places()
	one := simple(network, subnet)
	full(network, subnet)
	layers(one)
	port(network, subnet)
	lists(subnet)
	endings(one)
	end()
}

// versions: features are told by the last version.
func versions() {
	pages, err := apiversions.List(lb).AllPages()
	must("versions", err)
	found, err := apiversions.ExtractAPIVersions(pages)
	check("versions", err)
	last := found[len(found)-1]
	var major, minor int
	_, err = fmt.Sscanf(last.ID, "v%d.%d", &major, &minor)
	check("the last version has all features", err)
	check("the last version has all features", that(major == 2 && minor >= 16 && last.Status == "CURRENT", "%+v", last))
}

func places() (string, string) {
	pages, err := networks.List(net, networks.ListOpts{Name: "vip"}).AllPages()
	must("networks", err)
	found, err := networks.ExtractNetworks(pages)
	check("networks", err)
	must("networks", that(len(found) == 1 && len(found[0].Subnets) == 2, "%+v", found))
	pages, err = subnets.List(net, subnets.ListOpts{NetworkID: found[0].ID, IPVersion: 4}).AllPages()
	must("subnets", err)
	of, err := subnets.ExtractSubnets(pages)
	check("subnets", err)
	must("subnets", that(len(of) == 1 && of[0].CIDR == "10.60.0.0/16", "%+v", of))
	pages, err = extensions.List(net).AllPages()
	check("extensions", err)
	_, err = extensions.ExtractExtensions(pages)
	check("extensions", err)
	pages, err = providers.List(lb, providers.ListOpts{}).AllPages()
	must("providers", err)
	all, err := providers.ExtractProviders(pages)
	check("providers", err)
	check("providers", that(len(all) == 2, "%+v", all))
	return found[0].ID, of[0].ID
}

// simple makes one thing after the other, as terraform does.
func simple(network, subnet string) string {
	var flavor struct{ Flavor struct{ ID string } }
	profile := object{"flavorprofile": object{"name": "single", "provider_name": "octavia", "flavor_data": `{"loadbalancer_topology": "SINGLE"}`}}
	var made struct{ Flavorprofile struct{ ID string } }
	must("flavor profile", send("POST", "flavorprofiles", profile, &made, 201))
	body := object{"flavor": object{"name": "single", "flavor_profile_id": made.Flavorprofile.ID, "enabled": true}}
	must("flavor", send("POST", "flavors", body, &flavor, 201))
	balancer, err := loadbalancers.Create(lb, loadbalancers.CreateOpts{
		Name: "kube_service_cluster_default_one", Description: "Kubernetes external service default/one from cluster",
		VipSubnetID: subnet, Provider: "octavia", FlavorID: flavor.Flavor.ID, Tags: []string{"kube_service_cluster_default_one", "x"},
	}).Extract()
	must("load balancer", err)
	check("load balancer", that(balancer.ProvisioningStatus == "PENDING_CREATE" && balancer.VipSubnetID == subnet && len(balancer.Tags) == 2, "%+v", balancer))
	balancer = active(balancer.ID)
	check("load balancer", that(balancer.Provider == "octavia" && balancer.FlavorID == flavor.Flavor.ID && balancer.VipNetworkID == network, "%+v", balancer))
	vip, err := ports.Get(net, balancer.VipPortID).Extract()
	check("port of the VIP", err)
	check("port of the VIP", that(vip.FixedIPs[0].IPAddress == balancer.VipAddress, "%+v", vip))
	pages, err := ports.List(net, ports.ListOpts{FixedIPs: []ports.FixedIPOpts{{IPAddress: balancer.VipAddress}}}).AllPages()
	check("ports by address", err)
	by, err := ports.ExtractPorts(pages)
	check("ports by address", err)
	check("ports by address", that(len(by) == 1 && by[0].ID == vip.ID, "%+v", by))
	pages, err = floatingips.List(net, floatingips.ListOpts{PortID: vip.ID}).AllPages()
	check("floating addresses", err)
	floating, err := floatingips.ExtractFloatingIPs(pages)
	check("floating addresses", err)
	check("floating addresses", that(len(floating) == 0, "%+v", floating))

	listener, err := listeners.Create(lb, listeners.CreateOpts{
		Name: "listener_0_one", LoadbalancerID: balancer.ID, Protocol: "HTTP", ProtocolPort: 80, ConnLimit: ptr(-1),
		TimeoutClientData: ptr(51000), TimeoutMemberConnect: ptr(5001), TimeoutMemberData: ptr(51000), TimeoutTCPInspect: ptr(1),
		InsertHeaders: map[string]string{"X-Forwarded-For": "true"}, AllowedCIDRs: []string{"10.0.0.0/8", "192.0.2.0/24"},
	}).Extract()
	must("listener", err)
	check("listener", that(listener.TimeoutClientData == 51000 && len(listener.AllowedCIDRs) == 2 && listener.InsertHeaders["X-Forwarded-For"] == "true", "%+v", listener))
	active(balancer.ID)
	_, err = listeners.Create(lb, listeners.CreateOpts{LoadbalancerID: balancer.ID, Protocol: "HTTP", ProtocolPort: 80}).Extract()
	refused("a port that another listener has", err, 409)
	listener, err = listeners.Update(lb, listener.ID, listeners.UpdateOpts{AllowedCIDRs: &[]string{"10.0.0.0/8"}, TimeoutMemberData: ptr(50000)}).Extract()
	check("change of a listener", err)
	check("change of a listener", that(len(listener.AllowedCIDRs) == 1 && listener.TimeoutMemberData == 50000, "%+v", listener))
	_, err = listeners.Update(lb, listener.ID, listeners.UpdateOpts{AllowedCIDRs: &[]string{"2001:db8::/32"}}).Extract()
	refused("prefixes of another family", err, 400)
	active(balancer.ID)

	pool, err := pools.Create(lb, pools.CreateOpts{
		Name: "pool_0_one", Protocol: "HTTP", LBMethod: "SOURCE_IP", ListenerID: listener.ID, Persistence: &pools.SessionPersistence{Type: "SOURCE_IP"},
	}).Extract()
	must("pool", err)
	check("pool", that(pool.Persistence.Type == "SOURCE_IP" && pool.Listeners[0].ID == listener.ID, "%+v", pool))
	active(balancer.ID)
	members := []pools.BatchUpdateMemberOpts{}
	for n := 1; n <= 20; n++ {
		members = append(members, pools.BatchUpdateMemberOpts{Address: fmt.Sprintf("10.60.9.%d", n), ProtocolPort: 30080, Name: text(fmt.Sprintf("node-%d", n)), SubnetID: text(subnet)})
	}
	for _, count := range []int{20, 19, 19, 0, 3} {
		must("members", pools.BatchUpdateMembers(lb, pool.ID, members[:count]).ExtractErr())
		active(balancer.ID)
		pages, err := pools.ListMembers(lb, pool.ID, pools.ListMembersOpts{}).AllPages()
		check("members", err)
		found, err := pools.ExtractMembers(pages)
		check("members", err)
		check("members", that(len(found) == count, "%d: %+v", count, found))
	}
	monitor, err := monitors.Create(lb, monitors.CreateOpts{
		Name: "monitor_0_one", PoolID: pool.ID, Type: "HTTP", Delay: 10, Timeout: 5, MaxRetries: 2, MaxRetriesDown: 3, URLPath: "/healthz", HTTPMethod: "GET", ExpectedCodes: "200",
	}).Extract()
	must("health monitor", err)
	active(balancer.ID)
	monitor, err = monitors.Update(lb, monitor.ID, monitors.UpdateOpts{Delay: 11, Timeout: 6, MaxRetries: 3}).Extract()
	check("change of a health monitor", err)
	check("change of a health monitor", that(monitor.Delay == 11 && monitor.MaxRetries == 3, "%+v", monitor))
	active(balancer.ID)
	_, err = loadbalancers.Update(lb, balancer.ID, loadbalancers.UpdateOpts{Tags: &[]string{"kube_service_cluster_default_one"}, Name: text("renamed")}).Extract()
	check("change of a load balancer", err)
	check("change of a load balancer", that(active(balancer.ID).Name == "renamed", "it has the old name"))
	return balancer.ID
}

// full makes all at once, as cloud-provider-openstack does.
func full(network, subnet string) {
	member := func(n int) object {
		return object{"address": fmt.Sprintf("10.60.8.%d", n), "protocol_port": 30443, "name": fmt.Sprintf("node-%d", n), "subnet_id": subnet, "monitor_port": 30256}
	}
	listener := func(port int) object {
		return object{
			"name": fmt.Sprintf("listener_%d_all", port), "protocol": "TCP", "protocol_port": port, "connection_limit": -1, "tags": []string{"all"},
			"timeout_client_data": 50000, "timeout_member_data": 50000, "timeout_member_connect": 5000, "timeout_tcp_inspect": 0, "allowed_cidrs": []string{"0.0.0.0/0"},
			"default_pool": object{
				"name": fmt.Sprintf("pool_%d_all", port), "protocol": "TCP", "lb_algorithm": "ROUND_ROBIN", "members": []object{member(1), member(2)},
				"healthmonitor": object{"name": fmt.Sprintf("monitor_%d_all", port), "type": "HTTP", "delay": 10, "timeout": 5, "max_retries": 1, "max_retries_down": 3, "url_path": "/healthz", "http_method": "GET", "expected_codes": "200"},
			},
		}
	}
	body := object{"loadbalancer": object{
		"name": "kube_service_cluster_default_all", "description": "Kubernetes external service", "provider": "amphora", "admin_state_up": true,
		"vip_network_id": network, "vip_subnet_id": subnet, "tags": []string{"all"}, "listeners": []object{listener(443), listener(8443)},
	}}
	var made struct{ Loadbalancer loadbalancers.LoadBalancer }
	must("all at once", send("POST", "loadbalancers", body, &made, 201))
	id := made.Loadbalancer.ID
	check("all at once", that(len(made.Loadbalancer.Listeners) == 2 && len(made.Loadbalancer.Pools) == 2, "%+v", made))
	active(id)
	pages, err := listeners.List(lb, listeners.ListOpts{LoadbalancerID: id, Name: "listener_443_all"}).AllPages()
	check("listeners by name", err)
	found, err := listeners.ExtractListeners(pages)
	check("listeners by name", err)
	check("listeners by name", that(len(found) == 1 && found[0].ProtocolPort == 443, "%+v", found))
	pages, err = pools.List(lb, pools.ListOpts{LoadbalancerID: id}).AllPages()
	check("pools of a load balancer", err)
	of, err := pools.ExtractPools(pages)
	check("pools of a load balancer", err)
	must("pools of a load balancer", that(len(of) == 2 && len(of[0].Listeners) == 1 && of[0].MonitorID != "" && len(of[0].Members) == 2, "%+v", of))
	_, err = monitors.Get(lb, of[0].MonitorID).Extract()
	check("health monitor of a pool", err)
	tree, err := loadbalancers.GetStatuses(lb, id).Extract()
	check("statuses", err)
	check("statuses", that(len(tree.Loadbalancer.Listeners) == 2 && len(tree.Loadbalancer.Listeners[0].Pools[0].Members) == 2, "%+v", tree))
	_, err = loadbalancers.GetStats(lb, id).Extract()
	check("statistics", err)
	// A node has gone, another has come.
	body = object{"members": []object{member(2), member(3)}}
	must("members", send("PUT", "pools/"+of[0].ID+"/members", body, nil, 202))
	active(id)
	must("no pool is left", send("DELETE", "healthmonitors/"+of[0].MonitorID, nil, nil, 204))
	active(id)
	check("no pool is left", pools.Delete(lb, of[0].ID).ExtractErr())
	check("no pool is left", listeners.Delete(lb, of[0].Listeners[0].ID).ExtractErr())
	active(id)
	refused("with children", loadbalancers.Delete(lb, id, loadbalancers.DeleteOpts{}).ExtractErr(), 400)
	check("with all that is in it", loadbalancers.Delete(lb, id, loadbalancers.DeleteOpts{Cascade: true}).ExtractErr())
	check("with all that is in it", gone(id))
}

// layers: policies and rules, as octavia-ingress-controller makes them.
func layers(id string) {
	listener, err := listeners.Create(lb, listeners.CreateOpts{LoadbalancerID: id, Protocol: "HTTP", ProtocolPort: 8080, Name: "ingress"}).Extract()
	must("listener of an ingress", err)
	pool, err := pools.Create(lb, pools.CreateOpts{LoadbalancerID: id, Protocol: "HTTP", LBMethod: "ROUND_ROBIN", Name: "ingress"}).Extract()
	must("pool of an ingress", err)
	policy, err := l7policies.Create(lb, l7policies.CreateOpts{ListenerID: listener.ID, Action: "REDIRECT_TO_POOL", RedirectPoolID: pool.ID, Position: 1, Name: "ingress"}).Extract()
	must("policy", err)
	for _, rule := range []l7policies.CreateRuleOpts{
		{RuleType: "HOST_NAME", CompareType: "EQUAL_TO", Value: "shop.example"},
		{RuleType: "PATH", CompareType: "STARTS_WITH", Value: "/cart"},
		{RuleType: "HEADER", CompareType: "REGEX", Key: "X-Kind", Value: "^a+$", Invert: true},
	} {
		_, err = l7policies.CreateRule(lb, policy.ID, rule).Extract()
		check("rule", err)
	}
	active(id)
	pages, err := l7policies.ListRules(lb, policy.ID, l7policies.ListRulesOpts{}).AllPages()
	check("rules", err)
	rules, err := l7policies.ExtractRules(pages)
	check("rules", err)
	must("rules", that(len(rules) == 3, "%+v", rules))
	_, err = l7policies.UpdateRule(lb, policy.ID, rules[0].ID, l7policies.UpdateRuleOpts{Value: "other.example"}).Extract()
	check("change of a rule", err)
	check("end of a rule", l7policies.DeleteRule(lb, policy.ID, rules[1].ID).ExtractErr())
	_, err = l7policies.Update(lb, policy.ID, l7policies.UpdateOpts{Action: "REDIRECT_TO_URL", RedirectURL: text("https://shop.example/")}).Extract()
	check("change of a policy", err)
	check("change of a policy", that(active(id).ProvisioningStatus == "ACTIVE", "it is not ACTIVE"))
	_, err = l7policies.Create(lb, l7policies.CreateOpts{ListenerID: listener.ID, Action: "REDIRECT_TO_URL"}).Extract()
	refused("a policy that leads nowhere", err, 400)
	check("end of a policy", l7policies.Delete(lb, policy.ID).ExtractErr())
	active(id)
}

// port: a VIP whose port was there before, which stays.
func port(network, subnet string) {
	made, err := ports.Create(net, ports.CreateOpts{NetworkID: network, Name: "mine", FixedIPs: []ports.IP{{SubnetID: subnet}}}).Extract()
	must("port", err)
	balancer, err := loadbalancers.Create(lb, loadbalancers.CreateOpts{Name: "of-port", VipPortID: made.ID}).Extract()
	must("VIP of a port", err)
	check("VIP of a port", that(balancer.VipPortID == made.ID && balancer.VipAddress == made.FixedIPs[0].IPAddress && balancer.VipSubnetID == subnet, "%+v", balancer))
	active(balancer.ID)
	_, err = loadbalancers.Create(lb, loadbalancers.CreateOpts{VipPortID: made.ID}).Extract()
	refused("a port twice", err, 400)
	refused("a port in use", ports.Delete(net, made.ID).ExtractErr(), 409)
	check("end of its load balancer", loadbalancers.Delete(lb, balancer.ID, loadbalancers.DeleteOpts{}).ExtractErr())
	check("end of its load balancer", gone(balancer.ID))
	_, err = ports.Get(net, made.ID).Extract()
	check("the port stays", err)
	check("end of a port", ports.Delete(net, made.ID).ExtractErr())
}

func lists(subnet string) {
	ids := []string{}
	for n := 0; n < 5; n++ {
		one, err := loadbalancers.Create(lb, loadbalancers.CreateOpts{Name: fmt.Sprintf("page-%d", n), VipSubnetID: subnet, Tags: []string{"page", fmt.Sprintf("n%d", n)}}).Extract()
		must("load balancers", err)
		ids = append(ids, one.ID)
	}
	for _, test := range []struct {
		options  loadbalancers.ListOpts
		expected string
	}{
		{loadbalancers.ListOpts{Tags: []string{"page"}, Limit: 2, SortKey: "name"}, "[page-0 page-1 page-2 page-3 page-4]"},
		{loadbalancers.ListOpts{Tags: []string{"page"}, Limit: 5, SortKey: "name", SortDir: "desc"}, "[page-4 page-3 page-2 page-1 page-0]"},
		{loadbalancers.ListOpts{Tags: []string{"page", "n3"}}, "[page-3]"},
		{loadbalancers.ListOpts{TagsAny: []string{"n1", "n3"}, SortKey: "name"}, "[page-1 page-3]"},
		{loadbalancers.ListOpts{Tags: []string{"page"}, TagsNotAny: []string{"n1", "n3"}, SortKey: "name"}, "[page-0 page-2 page-4]"},
		{loadbalancers.ListOpts{Name: "page-2"}, "[page-2]"},
		{loadbalancers.ListOpts{Name: "page"}, "[]"},
	} {
		found, err := balancers(test.options)
		check("lists", err)
		check("lists", that(fmt.Sprint(found) == test.expected, "%+v: %v", test.options, found))
	}
	for _, id := range ids {
		check("end in whatever state", loadbalancers.Delete(lb, id, loadbalancers.DeleteOpts{}).ExtractErr())
	}
	for _, id := range ids {
		check("end in whatever state", gone(id))
	}
}

// endings: what is not there, and what is already gone.
func endings(id string) {
	const none = "11111111-2222-4333-8444-555555555555"
	_, err := loadbalancers.Get(lb, none).Extract()
	refused("no load balancer", err, 404)
	_, err = listeners.Get(lb, none).Extract()
	refused("no listener", err, 404)
	refused("no pool", pools.Delete(lb, none).ExtractErr(), 404)
	refused("members of no pool", pools.BatchUpdateMembers(lb, none, []pools.BatchUpdateMemberOpts{}).ExtractErr(), 404)
	_, err = listeners.Create(lb, listeners.CreateOpts{LoadbalancerID: none, Protocol: "TCP", ProtocolPort: 1}).Extract()
	refused("listener of no load balancer", err, 404)
	_, err = loadbalancers.Create(lb, loadbalancers.CreateOpts{VipSubnetID: none}).Extract()
	refused("VIP of no subnet", err, 400)
	_, err = loadbalancers.Create(lb, loadbalancers.CreateOpts{VipNetworkID: none, Provider: "nobody"}).Extract()
	refused("no such provider", err, 400)
	check("end", loadbalancers.Delete(lb, id, loadbalancers.DeleteOpts{Cascade: true}).ExtractErr())
	check("end", gone(id))
	refused("end again", loadbalancers.Delete(lb, id, loadbalancers.DeleteOpts{Cascade: true}).ExtractErr(), 404)
}
