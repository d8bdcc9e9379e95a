// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Crashes this machine in places that user space cannot reach: write one of `ways` to
 * /sys/module/npcrash/parameters/way, and the kernel dies there.
 *
 * One function a way. None returns when it works, but for those that leave it to an interrupt; nothing is undone,
 * there is no way to unload this. API that did not change between Linux 5.10 and 7.x only.
 */
#include <linux/console.h>
#include <linux/cpumask.h>
#include <linux/delay.h>
#include <linux/irq_work.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/netdevice.h>
#include <linux/rtnetlink.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/timer.h>

#define DIE(where) panic("npcrash: %s", where)

/* interrupts and soft interrupts */

static void dies_in_hardirq(struct irq_work *work)
{
	DIE("in a hard interrupt");
}

static struct irq_work hard;

static int way_hardirq(void)
{
	init_irq_work(&hard, dies_in_hardirq);
	irq_work_queue(&hard);
	return 0;
}

static void dies_in_softirq(struct timer_list *unused)
{
	DIE("in a soft interrupt");
}

static DEFINE_TIMER(soon, dies_in_softirq);

static int way_softirq(void)
{
	mod_timer(&soon, jiffies + 1);
	return 0;
}

/* The next IPv4 packet that comes in is delivered from the NIC's own NAPI poll, which then never ends. */
static int dies_in_napi(struct sk_buff *skb, struct net_device *dev, struct packet_type *type, struct net_device *orig)
{
	DIE("in the NIC's NAPI poll");
	return 0;
}

static struct packet_type packets = { .type = cpu_to_be16(ETH_P_IP), .func = dies_in_napi };

static int way_napi(void)
{
	dev_add_pack(&packets);
	return 0;
}

/* locks */

static DEFINE_SPINLOCK(lock);

static int way_lock(void)
{
	unsigned long flags;

	spin_lock_irqsave(&lock, flags);
	DIE("with a spin lock held");
	return 0;
}

/* Every TX lock of every NIC, as a driver's transmit routine has its own. */
static void lock_tx(void)
{
	struct net_device *dev;
	unsigned int queue;

	local_bh_disable();
	rcu_read_lock();
	for_each_netdev_rcu(&init_net, dev) {
		if (dev->flags & IFF_LOOPBACK)
			continue;
		for (queue = 0; queue < dev->num_tx_queues; queue++)
			__netif_tx_lock(netdev_get_tx_queue(dev, queue), smp_processor_id());
	}
}

static int way_tx_lock(void)
{
	lock_tx();
	DIE("with the TX locks held");
	return 0;
}

static DECLARE_COMPLETION(locked);

static int hold_tx(void *unused)
{
	lock_tx();
	complete(&locked);
	for (;;)
		cpu_relax(); /* interrupts are on: panic()'s IPI stops this processor here */
	return 0;
}

static int way_tx_lock_elsewhere(void)
{
	struct task_struct *holder;
	unsigned int here = get_cpu(), there = cpumask_any_but(cpu_online_mask, here);

	put_cpu();
	if (there >= nr_cpu_ids)
		return -ENODEV;
	holder = kthread_create(hold_tx, NULL, "npcrash");
	if (IS_ERR(holder))
		return PTR_ERR(holder);
	kthread_bind(holder, there);
	wake_up_process(holder);
	wait_for_completion(&locked);
	DIE("while another processor holds the TX locks");
	return 0;
}

static int way_console_lock(void)
{
	console_lock();
	DIE("with the console lock held");
	return 0;
}

static int way_rtnl(void)
{
	rtnl_lock();
	DIE("with the RTNL mutex held");
	return 0;
}

/* faults */

static int way_bug(void)
{
	BUG();
	return 0;
}

static int *volatile nowhere;

static int way_null(void)
{
	*nowhere = 1;
	return 0;
}

static noinline int deeper(int depth)
{
	volatile char frame[256];

	frame[depth & 255] = depth;
	return (READ_ONCE(nowhere) ? 0 : deeper(depth + 1)) + frame[0];
}

static int way_stack_overflow(void)
{
	return deeper(0) < 0 ? -EIO : 0;
}

/* loops */

static int way_softlockup(void)
{
	preempt_disable();
	for (;;)
		cpu_relax();
	return 0;
}

static int way_hardlockup(void)
{
	local_irq_disable();
	for (;;)
		cpu_relax();
	return 0;
}

static const struct {
	const char *name;
	int (*crash)(void);
} ways[] = {
	{ "hardirq", way_hardirq },
	{ "softirq", way_softirq },
	{ "napi", way_napi },
	{ "lock", way_lock },
	{ "tx-lock", way_tx_lock },
	{ "tx-lock-elsewhere", way_tx_lock_elsewhere },
	{ "console-lock", way_console_lock },
	{ "rtnl", way_rtnl },
	{ "bug", way_bug },
	{ "null", way_null },
	{ "stack-overflow", way_stack_overflow },
	{ "softlockup", way_softlockup },
	{ "hardlockup", way_hardlockup },
};

static int set_way(const char *given, const struct kernel_param *unused)
{
	size_t number;

	for (number = 0; number < ARRAY_SIZE(ways); number++)
		if (sysfs_streq(given, ways[number].name))
			return ways[number].crash();
	return -EINVAL;
}

static const struct kernel_param_ops way_ops = { .set = set_way };

module_param_cb(way, &way_ops, NULL, 0200);
MODULE_PARM_DESC(way, "how to crash this machine, now");

static int __init npcrash_init(void)
{
	return 0;
}
module_init(npcrash_init);

MODULE_DESCRIPTION("Crashes this machine in chosen places");
MODULE_LICENSE("Dual MIT/GPL");
