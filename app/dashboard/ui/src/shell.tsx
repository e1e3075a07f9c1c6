import { ActionIcon, Anchor, AppShell, Burger, Group, Menu, NavLink, Text, Tooltip, useComputedColorScheme, useMantineColorScheme } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import {
  IconBell, IconCalendarWeek, IconChecklist, IconCpu, IconLanguage, IconLayoutDashboard, IconListCheck, IconLogout, IconMoon, IconServer, IconSun, IconTimeline,
} from "@tabler/icons-react";
import { Link, Outlet, useLocation, useRouter } from "@tanstack/react-router";
import { Suspense, useEffect } from "react";
import { useTranslation } from "react-i18next";

import { signOut } from "./api/actions";
import type { Role } from "./api/client";
import { useLive } from "./api/live";
import { useAct } from "./components/act";
import { Empty, Loading } from "./components/feedback";
import { useMay, useSession } from "./components/session";
import { Dot } from "./components/state";
import { i18next, languages } from "./i18n";

const places = [
  ["/", "overview", IconLayoutDashboard],
  ["/tasks", "tasks", IconListCheck],
  ["/calendar", "calendar", IconCalendarWeek],
  ["/executions", "executions", IconTimeline],
  ["/approvals", "approvals", IconChecklist],
  ["/alerts", "alerts", IconBell],
  ["/executors", "executors", IconCpu],
  ["/system", "system", IconServer],
] as const;

export function Shell() {
  const { t } = useTranslation();
  const [isOpen, { toggle, close }] = useDisclosure();
  const { pathname } = useLocation();
  const isLive = useLive(true);
  useEffect(() => close(), [pathname, close]);
  useAllPages();

  return (
    <AppShell header={{ height: 56 }} navbar={{ width: 208, breakpoint: "sm", collapsed: { mobile: !isOpen } }} padding={{ base: "sm", sm: "lg" }}>
      <AppShell.Header>
        <Group h="100%" px={{ base: "xs", sm: "md" }} justify="space-between" wrap="nowrap" gap="xs">
          <Group gap="xs" wrap="nowrap" style={{ minWidth: 0 }}>
            <Burger opened={isOpen} onClick={toggle} hiddenFrom="sm" size="sm" aria-label={t("nav.open")} aria-expanded={isOpen} />
            <a href="#content" className="link" style={{ position: "absolute", left: -9999 }} onFocus={(e) => (e.currentTarget.style.left = "8px")} onBlur={(e) => (e.currentTarget.style.left = "-9999px")}>
              {t("nav.skip")}
            </a>
            <Text fw={700} fz={{ base: "sm", xs: "md" }} className="clip">{t("app")}</Text>
          </Group>
          <Group gap={4} wrap="nowrap">
            <Group gap={6} mr="xs" wrap="nowrap" role="status">
              <Dot color={isLive ? "#22a06b" : "#d98a00"} pulse={!isLive} />
              <Text size="xs" visibleFrom="xs">{t(isLive ? "header.live" : "header.offline")}</Text>
            </Group>
            <LanguageMenu />
            <SchemeSwitch />
            <SignOut />
          </Group>
        </Group>
      </AppShell.Header>
      <AppShell.Navbar p="xs" aria-label={t("nav.label")}>
        {places.map(([to, name, Icon]) => (
          <NavLink
            key={to}
            component={Link}
            to={to}
            label={t(`nav.${name}`)}
            leftSection={<Icon size={18} aria-hidden />}
            active={to === "/" ? pathname === "/" : pathname.startsWith(to)}
            aria-current={(to === "/" ? pathname === "/" : pathname.startsWith(to)) ? "page" : undefined}
            style={{ borderRadius: "var(--mantine-radius-md)" }}
          />
        ))}
        <Anchor href="/docs" size="xs" c="dimmed" mt="auto" p="xs">{t("nav.docs")}</Anchor>
      </AppShell.Navbar>
      <AppShell.Main id="content" tabIndex={-1} style={{ outline: "none" }}>
        <Suspense fallback={<Loading />}>
          <Outlet />
        </Suspense>
      </AppShell.Main>
    </AppShell>
  );
}

const SETTLED_MILLISECONDS = 5_000;

/** Fetches the code of the other pages once the first one has come: they open also when the server is away. */
function useAllPages() {
  const { routesById } = useRouter();
  useEffect(() => {
    const timer = setTimeout(() => Object.values(routesById).forEach((route) => void route.options.component?.preload?.()), SETTLED_MILLISECONDS);
    return () => clearTimeout(timer);
  }, [routesById]);
}

function LanguageMenu() {
  const { t } = useTranslation();
  return (
    <Menu>
      <Menu.Target>
        <ActionIcon variant="subtle" color="gray" aria-label={t("header.language")}><IconLanguage size={18} aria-hidden /></ActionIcon>
      </Menu.Target>
      <Menu.Dropdown>
        {Object.entries(languages).map(([code, name]) => (
          <Menu.Item key={code} lang={code} onClick={() => void i18next.changeLanguage(code)}>{name}</Menu.Item>
        ))}
      </Menu.Dropdown>
    </Menu>
  );
}

function SchemeSwitch() {
  const { t } = useTranslation();
  const { setColorScheme } = useMantineColorScheme();
  const scheme = useComputedColorScheme("light");
  return (
    <Tooltip label={t("header.scheme")}>
      <ActionIcon variant="subtle" color="gray" aria-label={t("header.scheme")} onClick={() => setColorScheme(scheme === "dark" ? "light" : "dark")}>
        {scheme === "dark" ? <IconSun size={18} aria-hidden /> : <IconMoon size={18} aria-hidden />}
      </ActionIcon>
    </Tooltip>
  );
}

function SignOut() {
  const { t } = useTranslation();
  const session = useSession();
  // With the window goes what it has read.
  const leave = useAct(signOut, { then: () => window.location.reload() });
  if (session.csrf_token === null) return null;
  const who = t("header.signedIn", { name: session.name, role: t(`role.${session.role as Role}`) });
  return (
    <Tooltip label={`${t("header.signOut")} · ${who}`}>
      <ActionIcon variant="subtle" color="gray" aria-label={t("header.signOut")} onClick={() => leave.mutate(undefined)}>
        <IconLogout size={18} aria-hidden />
      </ActionIcon>
    </Tooltip>
  );
}

export function NotFound() {
  const { t } = useTranslation();
  return <Empty>{t("common.notFound")}</Empty>;
}

/** Around the pages that only change things: who may not is told, instead of filling in a form for nothing. */
export function ForOperators() {
  const { t } = useTranslation();
  return useMay("operator") ? <Outlet /> : <Empty>{t("common.forOperators")}</Empty>;
}
