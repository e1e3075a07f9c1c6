import { TextInput } from "@mantine/core";
import { useDebouncedValue } from "@mantine/hooks";
import { IconSearch } from "@tabler/icons-react";
import { useEffect, useEffectEvent, useState } from "react";
import { useTranslation } from "react-i18next";

interface Props {
  /** What is searched for, as the address has it. */
  searched: string;
  placeholder: string;
  search: (text: string) => void;
}

/** What is typed here is searched for once nobody types any more; a change of the address elsewhere is taken over. */
export function SearchBox({ searched, placeholder, search }: Props) {
  const { t } = useTranslation();
  const [text, setText] = useState(searched);
  const [settled] = useDebouncedValue(text, 250);
  const [seen, setSeen] = useState(searched);
  if (searched !== seen) {
    setSeen(searched);
    if (searched !== settled) setText(searched);
  }
  const ask = useEffectEvent(() => {
    if (settled === text && settled !== searched) search(settled);
  });
  useEffect(() => ask(), [settled]);
  return (
    <TextInput
      style={{ gridColumn: "span 2" }}
      leftSection={<IconSearch size={16} aria-hidden />}
      aria-label={t("common.search")}
      placeholder={placeholder}
      value={text}
      onChange={(event) => setText(event.currentTarget.value)}
    />
  );
}
